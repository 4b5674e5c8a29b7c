//! The smallest scenario against a built server: set TERRACE_BIN to the binary `terrace`.

use load_tests::door::Kind;
use load_tests::run::{Options, play};
use load_tests::scenario::Scenario;
use load_tests::servers::{Candidate, start};

#[test]
fn three_viewers_get_every_packet_of_a_speaker() {
    let Some(program) = std::env::var_os("TERRACE_BIN") else {
        println!("skipped: TERRACE_BIN does not name the built server");
        return;
    };
    let server = start(&Candidate::Terrace(program.into()), None).unwrap();
    let options = Options {
        scenario: Scenario::load("smoke").unwrap(),
        kind: Kind::Terrace,
        address: server.address(),
        process: Some(server.process()),
        bind: None,
        threads: 1,
        seed: 1,
        shows_progress: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(play(&options)).unwrap();
    assert_eq!(report.subscribers.len(), 3);
    for subscriber in &report.subscribers {
        // 31 packets of video and 50 of audio a second.
        assert!(subscriber.count.expected > 120, "{subscriber:?}");
        assert_eq!(subscriber.lost, 0, "{subscriber:?}");
        assert!(subscriber.first_keyframe_ms.is_some(), "{subscriber:?}");
    }
    // Each viewer's connection, and both of the speaker.
    assert_eq!(report.srtp_profiles.values().sum::<u32>(), 5);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.process.unwrap().cpu_us_per_packet > 0.0);
}
