//! Real sockets through a real line. Skipped with a word where none can be set up.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use line::{Change, Config, Direction, End, Endpoint, Line, Tally, Way};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use udp_batch::{Burst, Sender};

/// Far longer than anything here takes; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Leaves the test where lines can't be set up.
macro_rules! need_line {
    () => {
        if let Some(why) = line::unavailable() {
            println!("skipped: {why}");
            return;
        }
    };
}

fn up(changes: Vec<Change>) -> Line {
    let config = Config {
        changes,
        ..Config::default()
    };
    Line::up(&config).unwrap()
}

fn addresses(end: &Endpoint) -> [SocketAddr; 2] {
    [
        SocketAddr::new(end.ipv4.into(), 0),
        SocketAddr::new(end.ipv6.into(), 0),
    ]
}

/// A UDP socket at each end, of one family.
fn sockets(line: &Line, is_v6: bool) -> (UdpSocket, UdpSocket) {
    let socket = |end, endpoint: &Endpoint| {
        let address = addresses(endpoint)[usize::from(is_v6)];
        let socket = line.inside(end, || UdpSocket::bind(address)).unwrap();
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    (socket(End::A, line.a()), socket(End::B, line.b()))
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    try_receive(socket).unwrap()
}

fn try_receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 2000];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => return Ok(buffer[..length].to_vec()),
            // With a time limit, a signal's end is told instead of waiting on.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn namespace(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

#[test]
fn datagrams_go_both_ways_on_both_families_and_each_is_counted() {
    need_line!();
    let line = up(Vec::new());
    for (is_v6, headers) in [(false, 28), (true, 48)] {
        let before = line.counts().unwrap();
        let (a, b) = sockets(&line, is_v6);
        for number in 0..100 {
            a.send_to(&[number; 1000], b.local_addr().unwrap()).unwrap();
            assert_eq!(receive(&b), [number; 1000]);
            b.send_to(&[number; 50], a.local_addr().unwrap()).unwrap();
            assert_eq!(receive(&a), [number; 50]);
        }
        let after = line.counts().unwrap();
        let added = |before: Tally, after: Tally| {
            (after.packets - before.packets, after.bytes - before.bytes)
        };
        let (to_b, to_a) = ((100, 100 * (1000 + headers)), (100, 100 * (50 + headers)));
        assert_eq!(added(before.a_to_b.sent, after.a_to_b.sent), to_b);
        assert_eq!(added(before.a_to_b.delivered, after.a_to_b.delivered), to_b);
        assert_eq!(added(before.b_to_a.sent, after.b_to_a.sent), to_a);
        assert_eq!(added(before.b_to_a.delivered, after.b_to_a.delivered), to_a);
    }
}

#[test]
fn the_first_packet_arrives_as_soon_as_the_line_is_up() {
    need_line!();
    for _ in 0..10 {
        let line = up(Vec::new());
        let (a, b) = sockets(&line, true);
        a.send_to(b"first", b.local_addr().unwrap()).unwrap();
        b.send_to(b"first", a.local_addr().unwrap()).unwrap();
        assert_eq!(
            (receive(&a), receive(&b)),
            (b"first".into(), b"first".into())
        );
    }
}

#[test]
fn a_real_line_loses_exactly_the_packets_that_the_pure_one_loses() {
    need_line!();
    let change = Change {
        loss: Some(0.1),
        burst: Some(line::Burst {
            enter: 0.02,
            leave: 0.3,
            loss: 0.9,
        }),
        direction: Way::AToB,
        ..Change::default()
    };
    let line = up(vec![change.clone()]);
    let mut pure = Direction::new(Config::default().seed);
    pure.set(Duration::ZERO, change.apply(pure.condition()));
    let (a, b) = sockets(&line, false);
    for number in 0..1000_u32 {
        a.send_to(&number.to_be_bytes(), b.local_addr().unwrap())
            .unwrap();
        pure.receive(Duration::ZERO, number, 32);
        if let Some((number, _)) = pure.deliver(Duration::ZERO) {
            assert_eq!(receive(&b), number.to_be_bytes());
        }
    }
    let arrived = pure.counts().delivered.packets;
    assert!((700..950).contains(&arrived), "{arrived}");
    // The last ones may have been lost on the real line a moment later.
    wait_for("both have counted the same", || {
        line.counts().unwrap().a_to_b == pure.counts()
    });
}

/// Kernels before 6.11 refuse to cut for a device that computes no checksums (`EIO`), and a TUN
/// device is one.
#[test]
fn a_joined_burst_crosses_the_line_as_the_datagrams_that_it_was() {
    need_line!();
    let line = up(Vec::new());
    for is_v6 in [false, true] {
        let (a, b) = sockets(&line, is_v6);
        let mut burst = Burst::new(1 << 16, 8);
        for number in 0..40 {
            assert!(burst.push(b.local_addr().unwrap(), &[number; 1200]));
        }
        let mut sender = Sender::new(&a);
        let sent = sender.send(&a, &mut burst, |failure| panic!("{failure}"));
        println!("joined: {}", sender.is_segmenting());
        assert_eq!(sent.datagrams, 40);
        for number in 0..40 {
            assert_eq!(receive(&b), [number; 1200]);
        }
    }
    assert_eq!(line.counts().unwrap().a_to_b.delivered.packets, 80);
}

#[test]
fn delay_is_kept_to_a_millisecond() {
    need_line!();
    let line = up(vec![Change {
        delay_ms: Some(20.0),
        ..Change::default()
    }]);
    let (a, b) = sockets(&line, false);
    let mut took = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        a.send_to(b"there", b.local_addr().unwrap()).unwrap();
        receive(&b);
        took.push(begin.elapsed());
    }
    took.sort_unstable();
    let (least, median) = (took[0], took[took.len() / 2]);
    println!("20 ms became {least:?} at least, {median:?} in the middle");
    assert!(least >= Duration::from_millis(20));
    // Less than one millisecond more on a quiet machine; a busy one is another matter.
    assert!(median < Duration::from_millis(60), "{median:?}");
}

#[test]
fn tcp_through_a_slow_line_is_as_fast_as_its_rate() {
    need_line!();
    let line = up(vec![Change {
        delay_ms: Some(5.0),
        rate_kbit: Some(8000),
        queue_ms: Some(200.0),
        ..Change::default()
    }]);
    let address = addresses(line.b())[0];
    let listener = line.inside(End::B, || TcpListener::bind(address)).unwrap();
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    let begin = Instant::now();
    let stream = line.inside(End::A, || TcpStream::connect(address)).unwrap();
    let mut stream = stream.unwrap();
    stream.write_all(&vec![7; 1_000_000]).unwrap();
    drop(stream);
    assert_eq!(reader.join().unwrap(), 1_000_000);
    // 8 Mbit and headers at 8 Mbit/s.
    let took = begin.elapsed();
    println!("1 MB at 8 Mbit/s took {took:?}");
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn an_outage_begins_and_ends_by_command_and_by_schedule() {
    need_line!();
    let line = up(Vec::new());
    let (a, b) = sockets(&line, true);
    let to = b.local_addr().unwrap();
    let outage = |second, outage| Change {
        second,
        outage: Some(outage),
        ..Change::default()
    };
    line.set(outage(0.0, true)).unwrap();
    a.send_to(b"lost", to).unwrap();
    wait_for("the outage takes the packet", || {
        line.counts().unwrap().a_to_b.outage.packets == 1
    });
    let now = line.counts().unwrap().second;
    line.set(outage(now + 0.1, false)).unwrap();
    wait_for("the line is back", || {
        a.send_to(b"there", to).unwrap();
        b.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        try_receive(&b).is_ok()
    });
    assert!(line.counts().unwrap().second >= now + 0.1);
    let error = line.set(Change {
        loss: Some(2.0),
        ..Change::default()
    });
    assert!(error.unwrap_err().to_string().contains("loss"));
}

#[test]
fn a_command_runs_inside_an_end_and_lines_may_meet_in_one_namespace() {
    need_line!();
    let first = up(Vec::new());
    let second = Line::up(&Config {
        network: 78,
        a: Some(first.b().namespace.clone()),
        ..Config::default()
    })
    .unwrap();
    let output = first
        .command(End::B, "ip")
        .args(["-brief", "address"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("10.77.0.2/24") && text.contains("10.78.0.1/24"),
        "{text}"
    );
    let (a, b) = sockets(&second, false);
    a.send_to(b"from the middle", b.local_addr().unwrap())
        .unwrap();
    assert_eq!(receive(&b), b"from the middle");
    assert_eq!(first.counts().unwrap().b_to_a.sent.packets, 0);
    let names = [first.b(), second.b()].map(|end| end.namespace.clone());
    drop(second);
    assert!(namespace(&names[0]).exists() && !namespace(&names[1]).exists());
    drop(first);
    assert!(!namespace(&names[0]).exists());
}

#[test]
fn what_runs_inside_ends_with_the_line() {
    need_line!();
    let line = up(Vec::new());
    let mut child = line.command(End::A, "sleep").arg("1000").spawn().unwrap();
    wait_for("it runs", || {
        let link = std::fs::read_link(format!("/proc/{}/exe", child.id()));
        link.is_ok_and(|program| program.ends_with("sleep") || program.ends_with("coreutils"))
    });
    drop(line);
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_namespace_that_is_not_there_is_told() {
    need_line!();
    let config = Config {
        b: Some("no-such-namespace".into()),
        ..Config::default()
    };
    let error = Line::up(&config).unwrap_err().to_string();
    assert!(error.contains("no-such-namespace"), "{error}");
}

/// The program, driven as from another language.
struct Program {
    child: Child,
    ready: Value,
    output: BufReader<std::process::ChildStdout>,
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_line"));
    command.arg("up").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

impl Program {
    fn start(arguments: &[&str]) -> Program {
        let mut child = program(arguments).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        output.read_line(&mut text).unwrap();
        Program {
            child,
            ready: serde_json::from_str(&text).unwrap(),
            output,
        }
    }

    fn ask(&mut self, request: &str) -> Value {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut text = String::new();
        self.output.read_line(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn namespaces(&self) -> [PathBuf; 2] {
        ["a", "b"].map(|end| namespace(self.ready["ready"][end]["namespace"].as_str().unwrap()))
    }

    fn control(&self) -> PathBuf {
        self.ready["ready"]["control"].as_str().unwrap().into()
    }

    fn is_gone(&self) -> bool {
        self.namespaces().iter().all(|path| !path.exists()) && !self.control().exists()
    }
}

#[test]
fn the_program_is_driven_by_lines_of_json_and_goes_when_its_input_closes() {
    need_line!();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("line.toml");
    std::fs::write(&config, "seed = 3\n[[change]]\ndelay_ms = 1\n").unwrap();
    let mut program = Program::start(&["--config", config.to_str().unwrap()]);
    let told = program.ask(r#"{"set": {"direction": "b_to_a", "outage": true}}"#);
    assert_eq!(
        told["ok"]["a_to_b"]["sent"],
        json!({"packets": 0, "bytes": 0})
    );
    for (request, why) in [
        (r#"{"set": {"loss": 2}}"#, "loss is 2"),
        (r#"{"set": {"lost": 1}}"#, "unknown field"),
        (r#"{"reset": {}}"#, "unknown variant"),
        ("nonsense", "expected"),
    ] {
        let told = program.ask(request);
        assert!(told["error"].as_str().unwrap().contains(why), "{told}");
    }
    let mut socket = UnixStream::connect(program.control()).unwrap();
    socket.write_all(b"{\"counts\": {}}\n").unwrap();
    let mut text = String::new();
    BufReader::new(socket).read_line(&mut text).unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["ok"]["b_to_a"]["outage"]["packets"], 0);
    assert!(!program.is_gone());
    drop(program.child.stdin.take());
    assert!(program.child.wait().unwrap().success());
    assert!(program.is_gone());
}

#[test]
fn a_command_beside_the_line_gets_its_places_and_gives_its_exit_code() {
    need_line!();
    let script = "ip netns exec $LINE_A ip -o address | grep -q \"$LINE_A_IPV4/24\" || exit 1
        ip netns exec $LINE_B ip -o address | grep -q \"$LINE_B_IPV6/64\" || exit 2
        test -S $LINE_CONTROL || exit 3
        echo $LINE_A $LINE_B $LINE_CONTROL
        exit 42";
    let output = program(&["--", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words.len(), 3);
    assert!(!namespace(words[0]).exists() && !namespace(words[1]).exists());
    assert!(!Path::new(words[2]).exists());
}

#[test]
fn nothing_is_left_when_the_command_is_killed_or_the_program_is_asked_to_end() {
    need_line!();
    for kills_child in [true, false] {
        let script = "echo $$ $LINE_A; exec sleep 1000";
        let mut child = program(&["--", "sh", "-c", script]).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        output.read_line(&mut text).unwrap();
        let (pid, name) = text.trim().split_once(' ').unwrap();
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        assert!(namespace(name).exists());
        if kills_child {
            kill_process(pid, Signal::KILL).unwrap();
        } else {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        }
        let code = if kills_child { 128 + 9 } else { 128 + 15 };
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(!namespace(name).exists());
    }
}

#[test]
fn what_a_killed_program_leaves_is_removed_by_the_next() {
    need_line!();
    let mut killed = Program::start(&[]);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    // Another test's line may have removed it already.
    line::remove_leftovers();
    assert!(killed.is_gone());
}

/// The figures in this folder's README; run by hand on a quiet machine, in release.
#[test]
#[ignore = "load of 5 s, for figures"]
fn two_hundred_megabits_per_second() {
    need_line!();
    let line = up(vec![Change {
        delay_ms: Some(10.0),
        ..Change::default()
    }]);
    let (a, b) = sockets(&line, false);
    let to = b.local_addr().unwrap();
    b.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let reader = std::thread::spawn(move || std::iter::from_fn(|| try_receive(&b).ok()).count());
    let rate = 200e6 / (1200.0 * 8.0);
    let (begin, length) = (Instant::now(), Duration::from_secs(5));
    let mut sent = 0_u64;
    while begin.elapsed() < length {
        while (sent as f64) < begin.elapsed().as_secs_f64() * rate {
            a.send_to(&[7; 1172], to).unwrap();
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let received = reader.join().unwrap();
    let counts = line.counts().unwrap().a_to_b;
    let share = run_time("line").as_secs_f64() / length.as_secs_f64();
    println!(
        "sent {sent}, delivered {}, received {received}; the line's thread used {:.0} % of a core",
        counts.delivered.packets,
        share * 100.0
    );
    assert_eq!(counts.delivered.packets, sent);
}

/// How long this process's threads of a name have run.
fn run_time(thread: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| task.unwrap().path())
        .filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == thread)
        .map(|task| std::fs::read_to_string(task.join("schedstat")).unwrap())
        .map(|text| text.split(' ').next().unwrap().parse().unwrap())
        .map(Duration::from_nanos)
        .sum()
}
