//! Calls of the server API with any body: each is answered, and the rooms are as before.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The end of the input in the middle of a step ends the run.
    let _ = signaling::fuzzing::calls(data);
});
