use super::*;
use crate::analysis::testing::{Heap, Random, object};
use crate::record::NameKind;

fn sample() -> Graph {
    let mut heap = Heap::new();
    let callcache = heap.name(NameKind::Text, "callcache");
    heap.root("vm", 0x1028).root("vm", 0x9000);
    heap.add(object(0x1000, Type::OBJECT, 0x1028), &[(0x8888, "@a"), (0x1050, "@user"), (3, "@b")]);
    let app = heap.name(NameKind::Text, "App");
    heap.add(Object { name: app, ..object(0x1028, Type::CLASS, 0x6000) }, &[(0x1000, "")]);
    heap.add(object(0x1050, Type::STRING, 0x7000), &[(0x10_0000, "")]);
    heap.add(Object { name: callcache, ..object(0x1078, Type::IMEMO, 0x1028) }, &[]);
    heap.add(object(0x1079, Type::STRING, 0x1028), &[(0x1000, "")]);
    heap.finish()
}

#[test]
fn objects_are_connected_and_false_references_are_counted() {
    let graph = sample();
    assert_eq!((graph.objects(), graph.edges().explicit(), graph.facts().dangling), (4, 2, 5));
    assert_eq!(graph.facts().misplaced, 1, "an address that is not aligned");
    assert_eq!(graph.edges().of(0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(graph.text(graph.label(0)), "@user");
    assert_eq!(graph.edges().of(3).count(), 0, "an IMEMO has no class");
    assert_eq!((graph.find(0x1050), graph.address(2), graph.find(0x1048)), (Some(2), 0x1050, None));
    assert_eq!((graph.roots().len(), graph.reach().objects()), (1, 3));
}

#[test]
fn every_object_has_a_class_name() {
    let graph = sample();
    let names: Vec<_> = graph.all().map(|object| graph.class_name(graph.class(object))).collect();
    assert_eq!(names, ["App", "#<Class:App>", "#<Class:0x7000>", "(IMEMO callcache)"]);
    assert_eq!((graph.own_name(1).as_deref(), graph.own_name(0)), (Some("App"), None));
}

#[test]
fn a_graph_that_does_not_fit_is_refused_before_it_takes_the_memory() {
    let mut builder = Builder::new(Wanted { most_bytes: Some(1 << 20), ..Wanted::default() });
    let result = (0..1 << 20).try_for_each(|at| builder.object(&object(at * 40, Type::OBJECT, 0)));
    assert!(matches!(result, Err(Error::Memory { objects: 65_536, .. })), "{result:?}");
    let mut builder = Builder::new(Wanted { most_bytes: Some(1 << 20), ..Wanted::default() });
    builder.object(&object(0, Type::OBJECT, 0)).unwrap();
    let result = (0..1 << 20).try_for_each(|_| builder.edge(0, NameId::NONE));
    assert!(matches!(result, Err(Error::Memory { objects: 1, .. })), "{result:?}");
}

#[test]
fn roots_free_slots_and_pages_count_for_the_memory_that_a_graph_takes() {
    let builder = || Builder::new(Wanted { most_bytes: Some(1 << 20), slots: true, ..Wanted::default() });
    let is_refused = |result: Result<()>| matches!(result, Err(Error::Memory { objects: 0, .. }));
    let root = record::Root { category: NameId::NONE, edge: Edge { target: 0x1000, label: NameId::NONE } };
    let mut roots = builder();
    assert!(is_refused((0..1 << 20).try_for_each(|_| roots.root(root))));
    let mut free = builder();
    assert!(is_refused((0..1 << 20).try_for_each(|_| free.free(&FreeSlots::default()))));
    let mut pages = builder();
    assert!(is_refused((0..1 << 10).try_for_each(|_| pages.pages(&[Page::default(); 1 << 10]))));
}

#[test]
fn stats_are_kept_once_for_each_name_and_only_some_of_too_many() {
    let mut builder = Builder::new(Wanted::default());
    let name = builder.names().push(NameKind::Text, b"count").unwrap();
    builder.stats(&vec![(name, 1); 100_000]);
    builder.stats(&[(name, 2)]);
    assert_eq!(builder.named_stats(), [("count".to_owned(), 2)]);
    let many: Vec<(NameId, u64)> = (1..100_000).map(|id| (NameId(id), 0)).collect();
    builder.stats(&many);
    assert_eq!(builder.named_stats().len(), MAX_STATS);
}

#[test]
fn references_that_go_on_belong_to_the_last_object_or_to_none() {
    let mut builder = Builder::new(Wanted::default());
    builder.object(&object(0x1000, Type::ARRAY, 0)).unwrap();
    let edges = [Edge { target: 0x1000, label: NameId::NONE }; 3];
    // More of the last one, some of one that never comes, some of the next one.
    builder.more_edges(0x1000, &edges).unwrap();
    builder.more_edges(0x3000, &edges).unwrap();
    builder.more_edges(0x2000, &edges).unwrap();
    builder.more_edges(0x2000, &edges).unwrap();
    builder.object(&object(0x2000, Type::ARRAY, 0)).unwrap();
    builder.edge(0x2000, NameId::NONE).unwrap();
    builder.more_edges(0x5000, &edges).unwrap();
    let graph = builder.finish();
    let counts: Vec<_> = graph.all().map(|object| graph.edges().explicit_of(object).len()).collect();
    assert_eq!((counts.as_slice(), graph.facts().dangling), (&[3, 7][..], 6));
}

// The heap of a graph that holds the same objects, read block by block.
fn through_a_graph(objects: &[(Object, Vec<Edge>)], shift: u8) -> Graph {
    let mut memory = crate::OwnedMemory::new();
    let header = crate::record::Header { address_shift: shift, ..crate::Header::default() };
    let mut writer = crate::Writer::new(memory.lend(), Vec::new(), &header).unwrap();
    for (object, edges) in objects {
        writer.object(object).unwrap();
        edges.iter().for_each(|edge| writer.edge(*edge).unwrap());
    }
    let graph = writer.finish(true, 0, 0).unwrap().1;
    crate::analysis::load::graph(&graph[..], Wanted { slots: true, ..Wanted::default() }).unwrap().graph
}

#[test]
fn a_block_adds_what_its_objects_one_by_one_would() {
    let mut random = Random::new(11);
    for round in 0..12 {
        // In every third round some addresses are where no object can be.
        let odd = |at: u32| u64::from(round % 3 == 2 && at % 400 == 399);
        let address = |at: u32| 0x7f00_0000_0000 + u64::from(at) * 40 + odd(at);
        let count = 3000 + random.below(4000);
        let objects: Vec<(Object, Vec<Edge>)> = (0..count)
            .map(|at| {
                let kind = Type(1 + random.below(20) as u8);
                let class = if random.below(4) == 0 { 0 } else { address(random.below(30)) };
                let size = if random.below(500) == 0 { 1 << 33 } else { 40 };
                // One object in a while has more references than a block holds.
                let most = if random.below(2000) == 0 { 150_000 } else { 4 };
                let edges =
                    (0..random.below(most)).map(|_| Edge { target: address(random.below(count)), label: NameId::NONE });
                let edges = edges.collect();
                (Object { size, slot_size: 40, ..object(address(at), kind, class) }, edges)
            })
            .collect();
        let mut builder = Builder::new(Wanted { slots: true, ..Wanted::default() });
        for (object, edges) in &objects {
            builder.object(object).unwrap();
            edges.iter().for_each(|edge| Target::edge(&mut builder, *edge).unwrap());
        }
        let expected = builder.finish();
        let graph = through_a_graph(&objects, if round % 3 == 2 { 0 } else { 3 });
        assert_eq!(graph.facts(), expected.facts(), "round {round}");
        assert_eq!(graph.objects(), expected.objects());
        for at in expected.all() {
            let of = |graph: &Graph| {
                let class = graph.class_name(graph.class(at)).into_owned();
                (graph.address(at), graph.kind(at), graph.size(at), class, graph.columns().slots[at as usize])
            };
            assert_eq!(of(&graph), of(&expected));
            let references = |graph: &Graph| graph.edges().of(at).map(|to| graph.address(to)).collect::<Vec<_>>();
            assert_eq!(references(&graph), references(&expected), "round {round}, {:#x}", graph.address(at));
        }
    }
}
