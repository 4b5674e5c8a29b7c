//! Any datagrams from any addresses at a shard with live connections, right and damaged ones, behind
//! decryption too: nothing fails, and what is sent and told is bounded by what came.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The end of the input in the middle of a step ends the run.
    let _ = sfu::fuzzing::datagrams(data);
});
