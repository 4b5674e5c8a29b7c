//! The smallest scenario against a built server: set TERRACE_BIN to the binary `terrace`.

use std::sync::Mutex;

use load_tests::door::{Address, Endpoint, Kind};
use load_tests::report::Report;
use load_tests::run::{Options, play};
use load_tests::scenario::Scenario;
use load_tests::servers::{Candidate, Server, start};

/// The server, unless it was not built.
fn server() -> Option<Server> {
    let Some(program) = std::env::var_os("TERRACE_BIN") else {
        println!("skipped: TERRACE_BIN does not name the built server");
        return None;
    };
    Some(start(&Candidate::Terrace(program.into()), None).unwrap())
}

fn played(server: &Server, scenario: Scenario, kind: Kind, endpoint: Endpoint) -> Report {
    let options = Options {
        scenario,
        kind,
        address: Address {
            endpoint,
            ..server.address()
        },
        process: Some(server.process()),
        metrics: server.metrics().map(str::to_owned),
        rooms: None,
        bind: None,
        threads: 1,
        seed: 1,
        shows_progress: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(play(&options)).unwrap()
}

fn is_complete(report: &Report) {
    assert_eq!(report.subscribers.len(), 3);
    for subscriber in &report.subscribers {
        // 31 packets of video and 50 of audio a second.
        assert!(subscriber.count.expected > 120, "{subscriber:?}");
        assert_eq!(subscriber.lost, 0, "{subscriber:?}");
        assert_eq!(subscriber.count.duplicates, 0, "{subscriber:?}");
        assert!(subscriber.first_keyframe_ms.is_some(), "{subscriber:?}");
    }
    assert_eq!(report.total.jumps, 0);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.process.as_ref().unwrap().cpu_us_per_packet > Some(0.0));
}

/// How many connections agreed on a profile is counted for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn three_viewers_get_every_packet_of_a_speaker_by_every_door() {
    let Some(server) = server() else {
        return;
    };
    let _alone = ONE_AT_A_TIME.lock();
    let smoke = || Scenario::load("smoke").unwrap();
    let connections = |report: &Report| report.srtp_profiles.values().sum::<u32>();
    let two = played(&server, smoke(), Kind::Terrace, Endpoint::Two);
    let one = played(&server, smoke(), Kind::Terrace, Endpoint::One);
    let whip = played(&server, smoke(), Kind::Whip, Endpoint::Two);
    for report in [&two, &one, &whip] {
        is_complete(report);
    }
    // Each viewer's, and one of the speaker where there need not be two.
    assert_eq!(connections(&one) - connections(&two), 4);
    assert_eq!(connections(&whip) - connections(&one), 4);
}

#[test]
fn a_room_in_which_nobody_sends_costs_no_packets() {
    let Some(server) = server() else {
        return;
    };
    let _alone = ONE_AT_A_TIME.lock();
    let mut scenario = Scenario::load("idle").unwrap();
    scenario.set_count("viewer", 5).unwrap();
    scenario.seconds = 1.0;
    let report = played(&server, scenario, Kind::Terrace, Endpoint::Two);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    // On a busy machine the generator may be starved; that nothing arrives is right here.
    let doubts = report.invalid.join("; ");
    assert!(
        !doubts.contains("arrived") && !doubts.contains("connected"),
        "{doubts}"
    );
    let process = report.process.unwrap();
    assert_eq!(process.cpu_us_per_packet, None);
    assert!(process.rss_per_client_kb > 0.0 && process.cores < 1.0);
}
