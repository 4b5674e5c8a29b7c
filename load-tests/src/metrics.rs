//! What a server tells of its own sending, in Prometheus' text format: nothing outside of it can be asked how many
//! datagrams went into one message or one call.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Datagrams that were sent.
pub(crate) const DATAGRAMS: &str = "terrace_media_datagrams_out_total";
/// Messages that they were handed to the kernel in: several datagrams are one by segmentation.
pub(crate) const MESSAGES: &str = "terrace_media_messages_out_total";
/// Calls that handed these over.
pub(crate) const CALLS: &str = "terrace_media_sends_total";

/// Totals of what a server sent. What it does not count is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentCounts {
    datagrams: Option<u64>,
    messages: Option<u64>,
    calls: Option<u64>,
}

impl SentCounts {
    /// Reads them at `url`.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn read(url: &str) -> Result<SentCounts> {
        let request = reqwest::Client::new().get(url).timeout(ANSWER_WITHIN);
        let response = request.send().await;
        let response = response.with_context(|| format!("no metrics at {url}"))?;
        if !response.status().is_success() {
            bail!("no metrics at {url}: {}", response.status());
        }
        Ok(SentCounts::parse(&response.text().await?))
    }

    fn parse(text: &str) -> SentCounts {
        let value = |name: &str| {
            let mut values = text.lines().filter_map(|line| {
                let value = line.strip_prefix(name)?.strip_prefix(' ')?;
                value.trim().parse().ok()
            });
            values.next()
        };
        SentCounts {
            datagrams: value(DATAGRAMS),
            messages: value(MESSAGES),
            calls: value(CALLS),
        }
    }

    /// What came since an earlier moment.
    pub fn since(&self, earlier: &SentCounts) -> SentCounts {
        let more = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        SentCounts {
            datagrams: more(self.datagrams, earlier.datagrams),
            messages: more(self.messages, earlier.messages),
            calls: more(self.calls, earlier.calls),
        }
    }

    /// Datagrams in a message.
    pub fn per_message(&self) -> Option<f64> {
        ratio(self.datagrams?, self.messages?)
    }

    /// Datagrams in a call.
    pub fn per_call(&self) -> Option<f64> {
        ratio(self.datagrams?, self.calls?)
    }
}

fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_what_came_between() {
        let text = |datagrams: u32, messages: u32| {
            format!(
                "# HELP {MESSAGES} Messages.\n# TYPE {MESSAGES} counter\n{DATAGRAMS} {datagrams}\n\
                 {MESSAGES} {messages}\n{MESSAGES}_more 7\n"
            )
        };
        let before = SentCounts::parse(&text(100, 90));
        let sent = SentCounts::parse(&text(400, 190)).since(&before);
        assert_eq!(sent.per_message(), Some(3.0));
        assert_eq!(sent.per_call(), None);
    }

    #[test]
    fn who_counts_nothing_has_no_ratios() {
        let sent = SentCounts::parse("up 1\n").since(&SentCounts::default());
        assert_eq!((sent.per_message(), sent.per_call()), (None, None));
    }
}
