//! What encoders and players send: offers and fragments of ICE.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The end of the input in the middle of a step ends the run.
    let _ = signaling::fuzzing::http_media(data);
});
