//! The order of a batch: each package behind those of the batch that it needs, so that whoever installs one
//! meanwhile finds what it depends on.

use std::collections::BTreeSet;

/// What is put in order.
pub(crate) trait Needs {
    /// Its name.
    fn name(&self) -> &str;
    /// Whether it needs the package of this name.
    fn needs(&self, name: &str) -> bool;
}

/// Each behind those that it needs; by name where that leaves a choice. The names come back of those that
/// need each other in a circle: of them, the first by name goes first.
pub(crate) fn in_order<T: Needs>(mut left: Vec<T>) -> (Vec<T>, BTreeSet<String>) {
    left.sort_by(|a, b| a.name().cmp(b.name()));
    let (mut done, mut circle) = (Vec::with_capacity(left.len()), BTreeSet::new());
    while !left.is_empty() {
        let waits = |one: &T| {
            let mut others = left.iter().filter(|other| other.name() != one.name());
            others.any(|other| one.needs(other.name()))
        };
        let free = left.iter().position(|one| !waits(one));
        let next = free.unwrap_or_else(|| {
            let first = on_a_circle(&left);
            circle.extend(left.get(first).map(|one| one.name().to_owned()));
            first
        });
        done.push(left.remove(next));
    }
    (done, circle)
}

/// The first by name that needs itself by way of others. All of them wait, so there is one.
fn on_a_circle<T: Needs>(left: &[T]) -> usize {
    let reaches = |from: usize| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            for (to, other) in left.iter().enumerate() {
                let needed = to != at && left.get(at).is_some_and(|one| one.needs(other.name()));
                if needed && to == from {
                    return true;
                }
                if needed && seen.insert(to) {
                    next.push(to);
                }
            }
        }
        false
    };
    (0..left.len()).find(|at| reaches(*at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, &'static [&'static str]);

    impl Needs for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn needs(&self, name: &str) -> bool {
            self.1.contains(&name)
        }
    }

    fn ordered(all: Vec<Named>) -> (Vec<&'static str>, Vec<String>) {
        let (done, circle) = in_order(all);
        (
            done.iter().map(|n| n.0).collect(),
            circle.into_iter().collect(),
        )
    }

    #[test]
    fn each_comes_behind_what_it_needs_and_circles_are_told() {
        let tree = vec![
            Named("d", &[]),
            Named("a", &["c", "b"]),
            Named("b", &["c", "elsewhere"]),
            Named("c", &["c"]),
        ];
        assert_eq!(ordered(tree), (vec!["c", "b", "a", "d"], vec![]));
        // `a` only waits for the circle of `m` and `n`; it is none of it.
        let circle = vec![
            Named("n", &["m"]),
            Named("a", &["n"]),
            Named("m", &["n", "z"]),
            Named("z", &[]),
        ];
        assert_eq!(
            ordered(circle),
            (vec!["z", "m", "n", "a"], vec!["m".to_owned()])
        );
    }
}
