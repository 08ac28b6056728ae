use super::*;
use crate::analysis::testing::{Heap, object};
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
