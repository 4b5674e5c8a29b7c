//! When a source sends how much.

use std::time::Duration;

use crate::clip;
use crate::scenario::Video;

/// Bytes of RTP payload in a full packet of video: what browsers fill.
const VIDEO_PACKET_BYTES: u32 = 1190;

/// Frames a second that a camera is given unless its scenario says how many packets a frame has.
const FRAMES_PER_SECOND: f64 = 30.0;

/// Opus packets a second.
const AUDIO_PACKETS_PER_SECOND: u64 = 50;

/// Bytes of an Opus packet: 32 kbit/s.
const AUDIO_PACKET_BYTES: u32 = 80;

/// A source's regular beat: on each one a frame is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beat {
    /// Time from frame to frame.
    pub period: Duration,
    /// Packets of a frame, sent one after the other at once.
    pub packets: u32,
    /// RTP payload bytes of each packet.
    pub bytes: u32,
    /// Ticks of the RTP clock from frame to frame.
    pub ticks: f64,
}

impl Beat {
    /// The beat of a camera.
    pub fn video(video: &Video) -> Beat {
        let bytes_per_second = f64::from(video.kbps) * 1000.0 / 8.0;
        let packets_per_second = bytes_per_second / f64::from(VIDEO_PACKET_BYTES);
        if video.clip {
            // Its frames have the packets they need, these on average.
            let frames = clip::FRAMES_PER_SECOND;
            return Beat {
                period: Duration::from_secs(1) / frames,
                packets: (packets_per_second / f64::from(frames)).round().max(1.0) as u32,
                bytes: VIDEO_PACKET_BYTES,
                ticks: 90_000.0 / f64::from(frames),
            };
        }
        let packets = video
            .frame_packets
            .unwrap_or_else(|| (packets_per_second / FRAMES_PER_SECOND).round().max(1.0) as u32);
        let period = f64::from(packets) / packets_per_second;
        Beat {
            period: Duration::from_secs_f64(period),
            packets,
            bytes: VIDEO_PACKET_BYTES,
            ticks: period * 90_000.0,
        }
    }

    /// The beat of a microphone.
    pub fn audio() -> Beat {
        Beat {
            period: Duration::from_millis(1000 / AUDIO_PACKETS_PER_SECOND),
            packets: 1,
            bytes: AUDIO_PACKET_BYTES,
            ticks: 960.0,
        }
    }

    /// How long after the common start the source with this number sends first: sources are
    /// spread over the period, as cameras do not start at the same moment.
    pub fn phase(&self, source: u32) -> Duration {
        // Multiples of the golden ratio lie evenly however many there are.
        self.period
            .mul_f64((f64::from(source) * 0.618_033_988_75).fract())
    }

    /// Packets a second.
    pub fn packets_per_second(&self) -> f64 {
        f64::from(self.packets) / self.period.as_secs_f64()
    }
}

/// The shares of media in a signalled scenario: which speaker is on at a time of a roll call.
pub fn speaker_at(elapsed: Duration, turn: Duration, speakers: usize) -> usize {
    if speakers == 0 {
        return 0;
    }
    let turns = elapsed.as_nanos() / turn.as_nanos().max(1);
    (turns % speakers as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Codec;

    fn video(kbps: u32, frame_packets: Option<u32>) -> Beat {
        Beat::video(&Video {
            codec: Codec::Vp8,
            kbps,
            frame_packets,
            clip: false,
        })
    }

    #[test]
    fn two_megabits_are_210_packets_three_at_a_time() {
        let beat = video(2000, Some(3));
        assert!((beat.packets_per_second() - 210.0).abs() < 0.2);
        assert_eq!(beat.packets, 3);
    }

    #[test]
    fn every_rate_is_kept_at_about_thirty_frames() {
        for kbps in [300, 1500, 4000] {
            let beat = video(kbps, None);
            let rate = beat.packets_per_second() * f64::from(beat.bytes) * 8.0 / 1000.0;
            assert!((rate - f64::from(kbps)).abs() < 1.0, "{rate}");
            let frames = 1.0 / beat.period.as_secs_f64();
            assert!((24.0..40.0).contains(&frames), "{frames}");
        }
        assert_eq!(Beat::audio().packets_per_second(), 50.0);
    }

    #[test]
    fn sources_are_spread_over_the_period() {
        let beat = Beat::audio();
        let mut phases: Vec<Duration> = (0..10).map(|source| beat.phase(source)).collect();
        phases.sort();
        for pair in phases.windows(2) {
            assert!(pair[1] - pair[0] > Duration::from_micros(500));
        }
        assert!(phases.iter().all(|phase| *phase < beat.period));
    }

    #[test]
    fn speakers_follow_each_other_round_and_round() {
        let at = |seconds| speaker_at(Duration::from_secs(seconds), Duration::from_secs(3), 4);
        assert_eq!([at(0), at(2), at(3), at(11), at(12)], [0, 0, 1, 3, 0]);
    }
}
