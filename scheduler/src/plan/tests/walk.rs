//! A random walk: many seeds, each a short run full of faults.

use super::{
    world::{Faults, World},
    *,
};

/// Unless `EDGERUNNER_WALK_SEEDS` says how many: `cargo xtask soak` walks ten times as many.
const SEEDS: u64 = 200;
const STEPS: u64 = 600;

const LIMITS: LifeLimits =
    LifeLimits { provisioning_ms: 60_000, starting_ms: 60_000, idle_ms: 60_000, job_ms: 600_000 };

/// Prints the seed of a walk that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the walk with seed {} failed", self.0);
        }
    }
}

fn walk(seed: u64) {
    let _named = Seed(seed);
    let mut random = SplitMix64(seed);
    let mut below = |limit: u64| random.next() % limit;
    let promised = |memory_mib, cpus: u64| Resources { memory_mib, cpu_millis: cpus * 1_000 };
    let app = || vec![RepositoryPattern::parse("acme/app").unwrap()];
    let mut pools = vec![
        Pool {
            max: 1 + below(6) as usize,
            limits: LIMITS,
            promised: promised(below(3), below(3)),
            ..pool("linux", &["linux", "x64"])
        },
        Pool {
            scope: Scope::Organization,
            max: 1 + below(4) as usize,
            priority: below(3) as i32 - 1,
            limits: LIMITS,
            devices: below(3) as usize,
            promised: promised(below(3), below(2)),
            label_parameters: LabelParameters {
                cpu: Some(1..=3),
                memory_gib: None,
                image: vec!["one".into(), "other".into()],
                run: true,
            },
            ..pool("org", &["linux", "gpu"])
        },
        Pool {
            max: 3,
            min_idle: below(3) as usize,
            repositories: app(),
            limits: LIMITS,
            devices: below(2) as usize,
            promised: promised(below(2), below(2)),
            ..pool("warm", &["warm"])
        },
        Pool {
            max: 1 + below(4) as usize,
            min_idle: below(2) as usize,
            parked: below(4) as usize,
            parked_ms: [600_000, 43_200_000][below(2) as usize],
            repositories: app(),
            limits: LIMITS,
            ..pool("parked", &["linux", "parked"])
        },
    ];
    // In some walks, jobs of forks have a pool of their own.
    if seed.is_multiple_of(3) {
        pools[0].forks = Forks::Refuse;
        pools.push(Pool { forks: Forks::Only, max: 2, name: "forks".into(), ..pools[0].clone() });
    }
    let two = below(2) == 0;
    let hosts = [Host::new("ghe.example.com"), Host::new("github.com")];
    let on = |host, credential| Credential { host, ..credential };
    let organization = TargetPattern::Organization("acme".into());
    let mut credentials = vec![
        on(hosts[0], credential("organization", organization)),
        on(hosts[0], credential("github", TargetPattern::Any)),
        on(hosts[1], credential("other", TargetPattern::Any)),
    ];
    // In some walks, two serve the same targets.
    if below(2) == 0 {
        credentials.push(on(hosts[0], credential("second", TargetPattern::Any)));
    }
    let settings = Settings {
        credentials,
        // Enough for the warm runners and one other.
        devices: ["0", "1", "2", "3"].map(str::to_owned).into(),
        max: 3 + below(8) as usize,
        order: if below(2) == 0 { Order::Fair } else { Order::Oldest },
        max_per_repository: if below(2) == 0 { usize::MAX } else { 1 + below(3) as usize },
        ..settings(pools)
    };
    let longest_step_ms = [3_000, 3_000, 20_000][below(3) as usize];
    // In some walks, nothing but GitHub's refusals pauses launches.
    let only_refusals = below(3) == 0;
    // Some walks are free of a kind of fault, some have a lot of it.
    let mut fault = |most: u64| if below(3) == 0 { 0 } else { below(most) };
    let faults = Faults {
        lost: fault(300),
        doubled: fault(500),
        cancelled: fault(300),
        stolen: fault(100),
        launch_fails: fault(300),
        never_online: fault(200),
        dies_unused: fault(200),
        dies_busy: fault(200),
        job_too_long: fault(100),
        does_not_end: fault(200),
        exit_unreported: fault(300),
        call_fails: fault(400),
        held: fault(200),
        unnamed: fault(1_000),
        never: fault(300),
        deleted: fault(20),
        restart: fault(20),
        drain: fault(10),
        schedule: fault(20),
        reload: fault(20),
        clock_set: fault(20),
        hangs: fault(20),
        container_stays: fault(100),
        wake_fails: fault(300),
        no_room: fault(300),
        room_stays_away: fault(950),
        machine: fault(20),
        disk: fault(20),
        trouble: fault(10),
    };
    let faults = match only_refusals {
        false => faults,
        true => Faults {
            launch_fails: 0,
            never_online: 0,
            dies_unused: 0,
            dies_busy: 0,
            call_fails: 0,
            restart: 0,
            trouble: 1 + faults.trouble,
            ..faults
        },
    };
    let parallel = below(4) as usize;
    // Enough for the warm runners and one other.
    let machine = promised(4 + below(4), 4 + below(4));
    let mut world = World::new(settings, faults, seed);
    world.set_machine(machine);
    world.hosts = hosts[..if two { 2 } else { 1 }].to_vec();
    if parallel > 0 {
        world.parallel.insert("acme/web".into(), parallel);
    }
    for _ in 0..STEPS {
        if world.chance(100) {
            let repository = ["acme/app", "acme/lib", "acme/web"][world.below(3) as usize];
            let labels: &[&str] = match world.below(14) {
                0..=3 => &["self-hosted", "linux"],
                4 => &["gpu"],
                10 => &["gpu", "cpu=1"],
                11 => &["gpu", "cpu=3"],
                12 => &["gpu", "cpu=1", "image=other"],
                13 => &["self-hosted", "gpu", "cpu=4"],
                5 | 6 => &["warm"],
                7 | 8 => &["parked"],
                _ => &["windows"],
            };
            let burst = if world.chance(50) { 8 } else { 1 };
            for _ in 0..burst {
                world.queue(repository, labels);
            }
        }
        let ms = 1 + world.below(longest_step_ms);
        world.step(ms);
    }
    world.agree();
    world.settle();
}

#[test]
fn limits_hold_and_nothing_is_lost_or_left_over_whatever_goes_wrong() {
    // To run one seed: EDGERUNNER_WALK_SEED=123 cargo test walk
    if let Some(seed) = std::env::var("EDGERUNNER_WALK_SEED").ok().and_then(|it| it.parse().ok()) {
        return walk(seed);
    }
    let seeds = std::env::var("EDGERUNNER_WALK_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"));
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..seeds).step_by(threads as usize).for_each(walk));
        }
    });
}
