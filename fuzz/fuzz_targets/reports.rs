//! Reports of subscribers are survived, and what is written is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The end of the input in the middle of a step ends the run.
    let _ = sfu::fuzzing::reports(data);
});
