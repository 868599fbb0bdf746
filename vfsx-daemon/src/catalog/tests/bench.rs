use super::rig::Rig;
use std::time::{Duration, Instant};
#[test]
#[ignore]
fn latency() {
    let rig = Rig::new();
    let mut took = Vec::new();
    let mut applied = Vec::new();
    for i in 0..300 {
        let start = Instant::now();
        rig.make_file("", &format!("f{i}"), &vec![i as u8; 20000]);
        let fed = rig.fed();
        while rig.catalog.status().applied < fed { std::thread::sleep(Duration::from_micros(100)); }
        applied.push(start.elapsed());
        while rig.catalog.status().covered < fed { std::thread::sleep(Duration::from_micros(100)); }
        took.push(start.elapsed());
    }
    took.sort(); applied.sort();
    println!("applied p50 {:?} p99 {:?}; covered p50 {:?} p99 {:?}", applied[150], applied[297], took[150], took[297]);
    let start = Instant::now();
    rig.make_dir("", "many");
    for i in 0..10000 { rig.make_file("many", &format!("f{i}"), &vec![i as u8; 5000]); }
    let made = start.elapsed();
    rig.settle();
    println!("10000 files made {made:?} settled {:?}", start.elapsed());
}
#[test]
#[ignore]
fn scan() {
    let rig = Rig::with(|root| for d in 0..100 { let dir = root.join(format!("d{d}")); std::fs::create_dir(&dir).unwrap(); for f in 0..100 { std::fs::write(dir.join(format!("f{f}")), vec![f as u8; 8000]).unwrap(); } });
    let start = Instant::now();
    rig.settle();
    println!("initial scan of 10000 files {:?}", start.elapsed());
    let start = Instant::now();
    let n = rig.catalog.request_scan().unwrap();
    rig.wait("x", |s| s.scan.finished >= n);
    println!("second scan {:?}", start.elapsed());
}
