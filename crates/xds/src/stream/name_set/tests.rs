use super::*;

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

fn list(set: &NameSet) -> Vec<&str> {
    set.iter().map(|name| &**name).collect()
}

fn is_shared(one: &NameSet, other: &NameSet) -> bool {
    Arc::ptr_eq(one.members.as_ref().unwrap(), other.members.as_ref().unwrap())
}

#[test]
fn equal_sets_have_equal_fingerprints_whatever_their_history() {
    let mut one = NameSet::default();
    let mut other = NameSet::default();
    one.change(names(&["a", "b", "c"]), Vec::new(), None);
    let copy = one.clone();
    other.change(names(&["x", "c", "b"]), Vec::new(), None);
    assert_ne!(one.fingerprint(), other.fingerprint());
    other.change(names(&["a"]), names(&["x"]), None);
    assert_eq!(one.fingerprint(), other.fingerprint());
    one.change(Vec::new(), names(&["a"]), None);
    assert_eq!((list(&copy), list(&one)), (vec!["a", "b", "c"], vec!["b", "c"]), "a copy stays as it was");
    assert_eq!((copy.bytes(), one.bytes()), (3, 2));
    assert_ne!(one.fingerprint(), copy.fingerprint());
    one.change(Vec::new(), names(&["b", "c"]), None);
    assert_eq!((one.fingerprint(), one.bytes()), (NameSet::default().fingerprint(), 0));
}

#[test]
fn streams_that_come_to_the_same_names_share_them_whatever_their_way() {
    let pool = NamePool::default();
    let pool = Some(&pool);
    let [mut one, mut other, mut third] = <[NameSet; 3]>::default();
    one.change(names(&["b", "a", "c", "a"]), Vec::new(), pool);
    other.change(names(&["c", "b", "a"]), Vec::new(), pool);
    assert!(is_shared(&one, &other));
    // The same step from the same set, and another way to the same content.
    one.change(names(&["d"]), names(&["b"]), pool);
    assert!(!is_shared(&one, &other));
    assert_eq!(list(&other), ["a", "b", "c"]);
    other.change(names(&["d"]), names(&["b"]), pool);
    third.change(names(&["d", "x"]), Vec::new(), pool);
    third.change(names(&["c", "a"]), names(&["x"]), pool);
    assert!(is_shared(&one, &other) && is_shared(&one, &third));
    assert_eq!(list(&third), ["a", "c", "d"]);
}

#[test]
fn a_set_of_the_same_fingerprint_and_other_names_is_not_taken() {
    let pool = NamePool::default();
    let mut own = NameSet::default();
    own.change(names(&["a", "b"]), Vec::new(), Some(&pool));
    let fingerprint = own.fingerprint();
    for other in [["a", "c"], ["x", "y"], ["0", "a"]] {
        // As if the hashes of these names added up to those of "a" and "b".
        let foreign = Members { names: names(&other).into_iter().collect(), ..Members::default() };
        let _kept = pool.add(fingerprint, foreign);
        let mut set = NameSet::default();
        set.change(names(&["a", "b"]), Vec::new(), Some(&pool));
        assert_eq!(list(&set), ["a", "b"]);
    }
}

#[test]
fn a_pool_forgets_sets_that_nobody_has() {
    let pool = NamePool::default();
    let mut kept = Vec::new();
    for n in 0..10_000 {
        let mut set = NameSet::default();
        set.change(vec![format!("name-{n}").into()], Vec::new(), Some(&pool));
        if n % 1_000 == 0 {
            kept.push(set);
        }
    }
    assert!(pool.len() < 100, "{} sets are in the pool, and {} in use", pool.len(), kept.len());
    let mut again = NameSet::default();
    again.change(vec!["name-3000".into()], Vec::new(), Some(&pool));
    assert!(is_shared(&again, &kept[3]));
}
