//! A real picture in 1080p: a moving test pattern that ffmpeg encodes when a run begins, played round and round.
//!
//! Each packet carries a stamp beside its part of the picture, which decoders must not see. So the encoder cuts its
//! slices to fit a packet, and slice and stamp travel together, the stamp as filler data, which decoders skip
//! (RFC 6184, 5.7.1: one aggregation packet). The only keyframe is the first frame: whoever asks for one makes the
//! clip begin again.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::payload::Stamp;

/// Width and height.
pub const SIZE: (u32, u32) = (1920, 1080);

/// Frames a second.
pub const FRAMES_PER_SECOND: u32 = 30;

/// Length in seconds: a keyframe comes round this often.
const SECONDS: u32 = 4;

/// The longest slice that the encoder makes, in bytes.
const SLICE_BYTES: usize = 1100;

/// The longest payload that a packet may have.
const PAYLOAD_BOUND: usize = 1200;

const SLICE: u8 = 1;
const KEYFRAME_SLICE: u8 = 5;
const SEQUENCE_PARAMETERS: u8 = 7;
const PICTURE_PARAMETERS: u8 = 8;
const FILLER: u8 = 12;
const AGGREGATION: u8 = 0x60 | 24;

/// The payloads of each frame.
#[derive(Clone, Debug)]
pub struct Clip {
    frames: Vec<Vec<Vec<u8>>>,
}

impl Clip {
    /// Has it made at a rate, in thousands of bits a second.
    ///
    /// # Errors
    /// When ffmpeg with libx264 is missing, or makes something else.
    pub fn encode(kbps: u32) -> Result<Clip> {
        let (width, height) = SIZE;
        let rate = format!("{kbps}k");
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i"])
            .arg(format!(
                "testsrc2=size={width}x{height}:rate={FRAMES_PER_SECOND}:duration={SECONDS}"
            ))
            .args([
                "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast",
            ])
            .args(["-profile:v", "baseline", "-tune", "zerolatency"])
            .args([
                "-b:v",
                &rate,
                "-maxrate",
                &rate,
                "-bufsize",
                &format!("{}k", kbps / 2),
            ])
            .arg("-x264-params")
            .arg(format!(
                "slice-max-size={SLICE_BYTES}:keyint=infinite:scenecut=0"
            ))
            .args(["-f", "h264", "pipe:1"])
            .stdin(Stdio::null())
            .output()
            .context("the clip needs ffmpeg, which could not be started")?;
        if !output.status.success() {
            bail!(
                "ffmpeg made no clip: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Clip::from_byte_stream(&output.stdout).context("ffmpeg's clip")
    }

    /// From H.264's byte stream (Annex B).
    fn from_byte_stream(stream: &[u8]) -> Result<Clip> {
        let mut frames: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut parameters: Vec<&[u8]> = Vec::new();
        for unit in units(stream) {
            match unit[0] & 0x1f {
                SEQUENCE_PARAMETERS | PICTURE_PARAMETERS => parameters.push(unit),
                kind @ (SLICE | KEYFRAME_SLICE) => {
                    // The first macroblock's number is 0, in Exp-Golomb code a single 1.
                    if unit.get(1).is_some_and(|byte| byte & 0x80 != 0) {
                        if (kind == KEYFRAME_SLICE) != frames.is_empty() {
                            bail!("the first frame and only that must be a keyframe");
                        }
                        let sets = std::mem::take(&mut parameters);
                        let is_described = !sets.is_empty();
                        frames.push(if is_described {
                            vec![payload(&sets)?]
                        } else {
                            Vec::new()
                        });
                    }
                    let frame = frames.last_mut().context("it begins within a frame")?;
                    frame.push(payload(&[unit])?);
                }
                // What describes the encoder, and borders that the marker tells.
                _ => {}
            }
        }
        if frames.is_empty() {
            bail!("there is no picture in it");
        }
        Ok(Clip { frames })
    }

    /// How many frames it has.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// The payloads of a frame, each with room for its stamp at the end.
    pub fn packets(&self, frame: usize) -> &[Vec<u8>] {
        &self.frames[frame]
    }
}

/// The units between start codes, without trailing zeros.
fn units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        loop {
            let begin = start_code(rest)? + 3;
            let after = &rest[begin..];
            let end = start_code(after).unwrap_or(after.len());
            rest = &after[end..];
            let unit = &after[..end];
            let length = unit
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1);
            if length > 0 {
                return Some(&unit[..length]);
            }
        }
    })
}

fn start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|three| three == [0, 0, 1])
}

/// One aggregation packet of the units and a filler unit in which a stamp will be.
fn payload(units: &[&[u8]]) -> Result<Vec<u8>> {
    let mut payload = vec![AGGREGATION];
    for unit in units {
        payload.extend((unit.len() as u16).to_be_bytes());
        payload.extend(*unit);
    }
    payload.extend((Stamp::LENGTH as u16 + 1).to_be_bytes());
    payload.push(FILLER);
    payload.resize(payload.len() + Stamp::LENGTH, 0xff);
    if payload.len() > PAYLOAD_BOUND {
        bail!("a slice of {} bytes fits no packet", payload.len());
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(units: &[&[u8]]) -> Vec<u8> {
        let mut stream = Vec::new();
        for unit in units {
            stream.extend([0, 0, 0, 1]);
            stream.extend(*unit);
        }
        stream
    }

    const SETS: [&[u8]; 2] = [&[0x67, 1, 2], &[0x68, 3]];

    #[test]
    fn slices_become_packets_of_their_frames() {
        let clip = Clip::from_byte_stream(&stream(&[
            &[0x06, 5],
            SETS[0],
            SETS[1],
            &[0x65, 0x88],
            &[0x65, 0x22],
            &[0x41, 0x9a],
            &[0x41, 0x26, 7],
        ]))
        .unwrap();
        assert_eq!(clip.frames(), 2);
        let lengths: Vec<usize> = clip.frames.iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 2]);
        let sets = &clip.packets(0)[0];
        assert_eq!(sets[..10], [0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3]);
        let last = &clip.packets(1)[1];
        assert_eq!(
            last[..8],
            [0x78, 0, 3, 0x41, 0x26, 7, 0, Stamp::LENGTH as u8 + 1]
        );
        assert_eq!(last[8], 12);
        assert_eq!(last.len(), 9 + Stamp::LENGTH);
    }

    #[test]
    fn what_can_not_be_played_is_refused() {
        let long = [&[0x65, 0x88][..], &[7; PAYLOAD_BOUND]].concat();
        for (units, reason) in [
            (vec![&[0x41, 0x9a][..]], "keyframe"),
            (vec![&[0x65, 0x88], &[0x65, 0x88]], "keyframe"),
            (vec![&long], "fits no packet"),
            (vec![], "no picture"),
        ] {
            let error = Clip::from_byte_stream(&stream(&units)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
