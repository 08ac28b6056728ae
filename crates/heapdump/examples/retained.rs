//! Prints the objects that retain most on the graph that reap sees: without the reference of each object to its class.
//!
//!     reap -c 50 DUMP.json
//!     cargo run --release --package diagctl-heapdump --example retained DUMP.json 50

#![expect(clippy::print_stdout, reason = "an example")]

use std::fs::File;
use std::io::BufReader;

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::held::Held;
use diagctl_heapdump::analysis::load;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: retained DUMP [N]")?;
    let limit = arguments.next().map_or(Ok(50), |limit| limit.parse())?;
    let wanted = Wanted { no_class_edges: true, ..Wanted::default() };
    let graph = load::any(BufReader::new(File::open(path)?), wanted)?.graph;
    let held = Held::new(&graph);
    let counts = held.counts();
    println!("root {} {}", held.retained[0], counts[0]);
    for object in held.largest(limit) {
        if let Some(number) = held.reach.number(object) {
            println!("{:#x} {} {}", graph.address(object), held.retained[number as usize], counts[number as usize]);
        }
    }
    Ok(())
}
