//! Driving a line from other programs: one JSON value per line in, one per line out.
//!
//! - `{"set": {"direction": "a_to_b", "loss": 0.02}}` makes a [`Change`].
//! - `{"counts": {}}` changes nothing.
//!
//! Both are answered by `{"ok": …}` with [`crate::LineCounts`], the counts at that moment, or by
//! `{"error": "…"}`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::condition::Change;
use crate::namespace::PREFIX;
use crate::pump::Control;

/// The longest request, in bytes.
const MAX_REQUEST: u64 = 1 << 16;

/// Connections served at once; further ones are closed.
const MAX_CONNECTIONS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Set(Change),
    Counts {},
}

/// Serves requests until `requests` ends.
///
/// # Errors
/// When reading or writing fails, or a request is too long.
pub fn serve(
    control: &Control,
    mut requests: impl BufRead,
    mut answers: impl Write,
) -> io::Result<()> {
    loop {
        let mut text = String::new();
        let length = (&mut requests).take(MAX_REQUEST).read_line(&mut text)?;
        if length == 0 {
            return Ok(());
        }
        if length as u64 == MAX_REQUEST {
            return Err(io::Error::other("a request is too long"));
        }
        if text.trim().is_empty() {
            continue;
        }
        let outcome = match serde_json::from_str(&text) {
            Ok(Request::Set(change)) => control.set(change).map_err(|error| error.to_string()),
            Ok(Request::Counts {}) => control.counts().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let answer = match outcome {
            Ok(counts) => json!({ "ok": counts }),
            Err(error) => json!({ "error": error }),
        };
        // In one piece, as somebody reads line by line.
        answers.write_all(format!("{answer}\n").as_bytes())?;
        answers.flush()?;
    }
}

/// Where this process's control socket is.
pub fn socket_path() -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}-{}.sock", std::process::id()))
}

/// A Unix socket on which a line is driven. Its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
}

impl ControlSocket {
    /// Listens at [`socket_path`] on a thread of its own; one per process.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn open(control: Control) -> io::Result<ControlSocket> {
        let path = socket_path();
        // Of a killed process that had the same id.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        std::thread::Builder::new()
            .name("line-control".into())
            .spawn(move || listen(&listener, &control))?;
        Ok(ControlSocket { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(listener: &UnixListener, control: &Control) {
    let connections = Arc::new(());
    for connection in listener.incoming().flatten() {
        if Arc::strong_count(&connections) > MAX_CONNECTIONS {
            continue;
        }
        let (control, guard) = (control.clone(), connections.clone());
        let thread = std::thread::Builder::new();
        // A connection that gets no thread is closed.
        let _ = thread.spawn(move || {
            let _guard = guard;
            // A connection that breaks off has nobody left to tell.
            let _ = serve_connection(&control, &connection);
        });
    }
}

fn serve_connection(control: &Control, connection: &UnixStream) -> io::Result<()> {
    serve(control, BufReader::new(connection), connection)
}
