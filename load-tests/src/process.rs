//! What a process costs, from `/proc`: processor time of all its threads, switches, memory.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Totals of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all threads, in nanoseconds.
    pub cpu: u64,
    /// Time in which threads could have run and had to wait for a processor, in nanoseconds.
    pub waited: u64,
    /// Times that a thread slept and was woken.
    pub wake_ups: u64,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl Usage {
    /// Of the process with this id.
    ///
    /// # Errors
    /// When there is no such process, or the kernel has no schedstat.
    pub fn of(process: u32) -> Result<Usage> {
        let folder = format!("/proc/{process}");
        let folder = Path::new(&folder);
        let mut usage = Usage::default();
        let tasks = std::fs::read_dir(folder.join("task"))
            .with_context(|| format!("there is no process {process}"))?;
        for task in tasks.flatten() {
            // A thread may end between the listing and the reading.
            let Ok(schedule) = std::fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let (cpu, waited) = parse_schedstat(&schedule)?;
            usage.cpu += cpu;
            usage.waited += waited;
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            usage.wake_ups += status_field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        usage.resident = status_field(&status, "VmRSS:").unwrap_or(0) * 1024;
        Ok(usage)
    }

    /// Of the calling thread, without memory.
    ///
    /// # Errors
    /// When the kernel has no schedstat.
    pub fn of_this_thread() -> Result<Usage> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat")
            .context("this kernel does not tell the processor time of threads (schedstat)")?;
        let (cpu, waited) = parse_schedstat(&text)?;
        Ok(Usage {
            cpu,
            waited,
            ..Usage::default()
        })
    }

    /// What came since an earlier moment; memory is the present one.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            waited: self.waited.saturating_sub(earlier.waited),
            wake_ups: self.wake_ups.saturating_sub(earlier.wake_ups),
            resident: self.resident,
        }
    }
}

/// The cores that a process may use.
///
/// # Errors
/// When there is no such process.
pub(crate) fn allowed_cores(process: u32) -> Result<Vec<usize>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("there is no process {process}"))?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("the kernel does not tell which cores a process may use")?;
    parse_cores(list.trim()).with_context(|| format!("the list of cores can't be read: {list:?}"))
}

/// A list such as `0-2,5`.
fn parse_cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

fn parse_schedstat(text: &str) -> Result<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(cpu)), Some(Ok(waited))) => Ok((cpu, waited)),
        _ => bail!("schedstat can't be read: {text:?}"),
    }
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_of_the_kernel_are_read() {
        assert_eq!(parse_schedstat("123 456 7\n").unwrap(), (123, 456));
        assert!(parse_schedstat("").is_err());
        let status = "Name:\tx\nVmRSS:\t  2048 kB\nvoluntary_ctxt_switches:\t12\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(2048));
        assert_eq!(status_field(status, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(status_field(status, "None:"), None);
        assert_eq!(parse_cores("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cores("0-x"), None);
    }

    #[test]
    fn work_is_seen() {
        let before = Usage::of(std::process::id()).unwrap();
        let mut sum = 0u64;
        while Usage::of_this_thread().unwrap().cpu < 20_000_000 {
            sum = std::hint::black_box(sum).wrapping_add(1);
        }
        let used = Usage::of(std::process::id()).unwrap().since(&before);
        assert!(used.cpu > 1_000_000 && used.resident > 0);
    }

    #[test]
    fn a_missing_process_is_told() {
        let error = Usage::of(u32::MAX).unwrap_err();
        assert!(error.to_string().contains("no process"));
    }
}
