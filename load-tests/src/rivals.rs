//! Processes that compute on the server's cores, so that it is short of them though its clients are few.

use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::process::allowed_cores;
use crate::scenario;
use crate::servers::on_core;

/// Processes that compute; they end with this value, and by themselves after their time.
pub(crate) struct Rivals(Vec<Child>);

impl Rivals {
    /// Starts them on the cores that a process may use.
    ///
    /// # Errors
    /// When there is no such process, or none can be started.
    pub(crate) fn start(rivals: &scenario::Rivals, beside: u32) -> Result<Rivals> {
        // They compute no longer than this even if nobody is left to end them.
        let bound = rivals.for_seconds.ceil() as u64 + 1;
        let mut started = Rivals(Vec::new());
        for core in allowed_cores(beside)? {
            for _ in 0..rivals.count {
                let mut command = on_core(Some(core), "sh".as_ref());
                command.args(["-c", &format!("ulimit -t {bound}; while :; do :; done")]);
                let child = command.stdin(Stdio::null()).spawn();
                started.0.push(child.context("can't start a rival")?);
            }
        }
        Ok(started)
    }
}

impl Drop for Rivals {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that ended by itself is as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
