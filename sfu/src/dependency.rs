//! The dependency descriptor, a header extension (AV1 RTP payload format 1.0, appendix A) that comes
//! with other codecs too: which layer a packet is of, and where a receiver may go up. A keyframe brings the structure of what follows;
//! later packets name a template of it.
//!
//! Reads only, never fails: where there is no structure, or one that can't be read, nothing is known
//! of the layers.

use crate::layer::{Indices, Standing};

/// Templates that a structure may have: as many as there are numbers for them.
const TEMPLATES: usize = 64;

/// A decode target indication: who goes on to this decode target with this frame can decode all that
/// follows.
const SWITCH: u32 = 2;

/// What all frames of one kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Template {
    indices: Indices,
    /// The uppermost temporal layer, at the same spatial one, to which it lets a receiver go up.
    raises_to: Option<u8>,
}

/// What frames follow a keyframe.
#[derive(Debug, PartialEq, Eq)]
struct Structure {
    /// The RTP sequence number of the packet that brought it.
    sequence: u64,
    /// The number of the first template.
    offset: u8,
    templates: Vec<Template>,
    /// The uppermost layer of each decode target.
    targets: Vec<Indices>,
}

/// The descriptors of one stream.
#[derive(Debug, Default)]
pub(crate) struct Dependencies {
    structure: Option<Structure>,
}

/// What a descriptor tells of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) standing: Standing,
    /// The uppermost layers of the structure, where it came with this packet.
    pub(crate) top: Option<Indices>,
}

impl Dependencies {
    /// Reads the descriptor of a packet.
    pub(crate) fn read(&mut self, sequence: u64, descriptor: &[u8]) -> Option<Told> {
        let mut bits = Bits {
            bytes: descriptor,
            at: 0,
        };
        let starts = bits.flag()?;
        let ends = bits.flag()?;
        let number = bits.take(6)? as u8;
        let _frame_number = bits.take(16)?;
        let mut top = None;
        let mut custom = None;
        if descriptor.len() > 3 {
            let has_structure = bits.flag()?;
            let has_active_targets = bits.flag()?;
            let has_custom_indications = bits.flag()?;
            let _has_custom_dependencies = bits.flag()?;
            let _has_custom_chains = bits.flag()?;
            if has_structure {
                let structure = Structure::read(&mut bits, sequence)?;
                top = structure
                    .targets
                    .iter()
                    .copied()
                    .reduce(|one, other| Indices {
                        spatial: one.spatial.max(other.spatial),
                        temporal: one.temporal.max(other.temporal),
                    });
                // One that was repaired late is older than the one in force.
                if self
                    .structure
                    .as_ref()
                    .is_none_or(|now| now.sequence <= sequence)
                {
                    self.structure = Some(structure);
                } else {
                    top = None;
                }
            } else if has_custom_indications {
                let targets = &self.structure.as_ref()?.targets;
                if has_active_targets {
                    bits.skip(targets.len());
                }
                custom = Some(&mut bits);
            }
        }
        let structure = self.structure.as_ref()?;
        let at = usize::from((number + TEMPLATES as u8 - structure.offset) % TEMPLATES as u8);
        let Template { indices, raises_to } = *structure.templates.get(at)?;
        let raises_to = match custom {
            Some(bits) => raises_to_by(bits, indices, &structure.targets)?,
            None => raises_to,
        };
        Some(Told {
            standing: Standing {
                indices,
                begins_picture: starts && indices.spatial == 0,
                ends_frame: ends,
                raises: raises_to.map(|to| (indices.temporal, to)),
            },
            top,
        })
    }
}

impl Structure {
    /// Reads a template dependency structure as far as it is needed here; dependencies, chains and
    /// resolutions follow.
    fn read(bits: &mut Bits<'_>, sequence: u64) -> Option<Structure> {
        let offset = bits.take(6)? as u8;
        let target_count = bits.take(5)? as usize + 1;
        let (mut spatial, mut temporal) = (0_u8, 0_u8);
        let mut templates = Vec::new();
        loop {
            templates.push(Template {
                indices: Indices::new(spatial, temporal),
                raises_to: None,
            });
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
            if templates.len() == TEMPLATES {
                return None;
            }
        }
        // A decode target goes as far up as what is present in it.
        let indications = Bits { ..*bits };
        let mut targets = vec![Indices::default(); target_count];
        for template in &templates {
            for target in &mut targets {
                if bits.take(2)? != 0 {
                    target.spatial = target.spatial.max(template.indices.spatial);
                    target.temporal = target.temporal.max(template.indices.temporal);
                }
            }
        }
        let mut again = indications;
        for template in &mut templates {
            template.raises_to = raises_to_by(&mut again, template.indices, &targets)?;
        }
        Some(Structure {
            sequence,
            offset,
            templates,
            targets,
        })
    }
}

/// Reads a frame's indications for all decode targets: up to which temporal layer of its own spatial
/// one it lets go up, if at all.
fn raises_to_by(bits: &mut Bits<'_>, of: Indices, targets: &[Indices]) -> Option<Option<u8>> {
    let mut raises_to = None;
    for target in targets {
        let is_switch = bits.take(2)? == SWITCH;
        let is_above = target.spatial == of.spatial && target.temporal > of.temporal;
        if is_switch && is_above {
            raises_to = raises_to.max(Some(target.temporal));
        }
    }
    Some(raises_to)
}

/// Reads bits, the most significant one first.
#[derive(Debug)]
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for at in self.at..self.at + count {
            let byte = *self.bytes.get(at / 8)?;
            value = (value << 1) | u32::from((byte >> (7 - at % 8)) & 1);
        }
        self.at += count;
        Some(value)
    }

    fn skip(&mut self, count: usize) {
        self.at += count;
    }
}

/// Checks that descriptors are survived, and that what is told is within bounds.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(data: &[u8]) {
    let mut dependencies = Dependencies::default();
    let mut rest = data;
    let mut sequence = 0;
    // Each descriptor is preceded by its length.
    while let [length, tail @ ..] = rest {
        let (descriptor, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        sequence += 1;
        let Some(told) = dependencies.read(sequence, descriptor) else {
            continue;
        };
        let Standing {
            indices, raises, ..
        } = told.standing;
        assert_eq!(indices, Indices::new(indices.spatial, indices.temporal));
        assert!(raises.is_none_or(|(from, to)| from == indices.temporal && to > from));
        let structure = dependencies.structure.as_ref().expect("something was told");
        assert!(structure.templates.len() <= TEMPLATES && structure.targets.len() <= 32);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes bits, the most significant one first.
    #[derive(Default)]
    struct Writer {
        bytes: Vec<u8>,
        at: usize,
    }

    impl Writer {
        fn put(&mut self, count: usize, value: u32) -> &mut Writer {
            for bit in (0..count).rev() {
                if self.at.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                let last = self.bytes.last_mut().unwrap();
                *last |= ((value >> bit & 1) as u8) << (7 - self.at % 8);
                self.at += 1;
            }
            self
        }
    }

    /// The descriptor of a keyframe's first packet with the structure of two spatial and two temporal
    /// layers, the upper spatial one predicted from the lower one in keyframes only.
    fn keyframe(offset: u8) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .put(2, 0b10)
            .put(6, u32::from(offset))
            .put(16, 7)
            .put(5, 0b10000);
        writer.put(6, u32::from(offset)).put(5, 3);
        // Templates: S0T0 of a keyframe, S0T0, S0T1, S1T0 of a keyframe, S1T0, S1T1.
        for next in [0, 1, 2, 0, 1, 3] {
            writer.put(2, next);
        }
        // For the decode targets S0T0, S0T1, S1T0, S1T1: - 0, D 1, S 2, R 3.
        for indications in [
            [2, 2, 2, 2],
            [2, 2, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 2, 2],
            [0, 0, 2, 2],
            [0, 0, 0, 1],
        ] {
            for one in indications {
                writer.put(2, one);
            }
        }
        writer.bytes.clone()
    }

    fn packet(bits: u32, number: u8) -> [u8; 3] {
        [(bits << 6) as u8 | number, 0, 9]
    }

    #[test]
    fn a_packet_stands_where_its_template_does() {
        for offset in [0, 17, 62] {
            let mut stream = Dependencies::default();
            assert_eq!(
                stream.read(1, &packet(0b11, 0)),
                None,
                "there is no structure yet"
            );
            let told = stream.read(2, &keyframe(offset)).unwrap();
            assert_eq!(told.top, Some(Indices::new(1, 1)));
            let standing = told.standing;
            assert_eq!(standing.indices, Indices::new(0, 0));
            assert!(standing.begins_picture && !standing.ends_frame);
            assert_eq!(standing.raises, Some((0, 1)));
            for (template, spatial, temporal, raises) in [
                (1, 0, 0, Some((0, 1))),
                (2, 0, 1, None),
                (3, 1, 0, Some((0, 1))),
                (4, 1, 0, Some((0, 1))),
                (5, 1, 1, None),
            ] {
                let number = (offset + template) % 64;
                for bits in 0..4 {
                    let told = stream.read(3, &packet(bits, number)).unwrap();
                    let expected = Standing {
                        indices: Indices::new(spatial, temporal),
                        begins_picture: bits & 0b10 != 0 && spatial == 0,
                        ends_frame: bits & 0b01 != 0,
                        raises,
                    };
                    assert_eq!(
                        told,
                        Told {
                            standing: expected,
                            top: None
                        }
                    );
                }
            }
            assert_eq!(
                stream.read(3, &packet(0, (offset + 6) % 64)),
                None,
                "no such template"
            );
        }
    }

    #[test]
    fn indications_of_a_frames_own_go_before_its_templates() {
        let mut stream = Dependencies::default();
        stream.read(1, &keyframe(0)).unwrap();
        let own = |active: bool, indications: [u32; 4]| {
            let mut writer = Writer::default();
            writer.put(2, 0b11).put(6, 1).put(16, 9);
            writer.put(5, if active { 0b01100 } else { 0b00100 });
            if active {
                writer.put(4, 0b1111);
            }
            for one in indications {
                writer.put(2, one);
            }
            writer.bytes.clone()
        };
        for active in [false, true] {
            let raises = |bytes: &[u8], stream: &mut Dependencies| {
                stream.read(2, bytes).unwrap().standing.raises
            };
            assert_eq!(raises(&own(active, [2, 3, 0, 0]), &mut stream), None);
            assert_eq!(
                raises(&own(active, [3, 2, 0, 0]), &mut stream),
                Some((0, 1))
            );
            assert_eq!(raises(&own(active, [3, 3, 2, 2]), &mut stream), None);
        }
    }

    #[test]
    fn a_structure_that_comes_late_changes_nothing() {
        let mut stream = Dependencies::default();
        stream.read(10, &keyframe(20)).unwrap();
        assert_eq!(stream.read(5, &keyframe(0)), None);
        assert!(stream.read(11, &packet(0, 21)).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            check(&data);
            let keyframe = keyframe(0);
            check(&[&[keyframe.len() as u8], &keyframe[..], &data].concat());
        }

        #[test]
        fn damaged_structures_are_survived(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length: prop::sample::Index,
        ) {
            let mut bytes = keyframe(0);
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            check(&[&[bytes.len() as u8], &bytes[..], &[3, 1, 0, 9]].concat());
        }
    }
}
