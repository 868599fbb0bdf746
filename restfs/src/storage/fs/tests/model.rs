use super::gc::{assert_only, collect, number_of};
use super::{Blocks, assert_holds, content, key_of, small_packs};
use crate::storage::BlockStore;
use crate::storage::fs::FsStore;
use proptest::prelude::*;
use restfs_lib::model::Compression;

#[derive(Debug, Clone)]
enum Step {
    Put {
        number: u32,
        length: usize,
        compression: Compression,
    },
    Flush,
    Reopen,
    ForgetIndex,
    Rebuild,
    /// Of every so many blocks, one is needed no more.
    Collect(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Zstd)];
    prop_oneof![
        20 => (0..40_u32, 0..2000_usize, compression)
            .prop_map(|(number, length, compression)| Step::Put { number, length, compression }),
        5 => Just(Step::Flush),
        2 => Just(Step::Reopen),
        1 => Just(Step::ForgetIndex),
        1 => Just(Step::Rebuild),
        2 => (1..4_u32).prop_map(Step::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn behaves_as_a_map_from_key_to_content(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Some(FsStore::open(folder.path(), &small_packs()).unwrap());
        let mut model = Blocks::new();
        for step in steps {
            let open = store.as_ref().unwrap();
            match step {
                Step::Put { number, length, compression } => {
                    let content = content(number, length);
                    open.put(key_of(&content), &content, compression).unwrap();
                    model.insert(key_of(&content), content);
                }
                Step::Flush => open.flush().unwrap(),
                Step::Collect(part) => {
                    let before = model.clone();
                    model.retain(|_, content| !number_of(content).is_multiple_of(part));
                    collect(open, &model);
                    let gone: Vec<_> = before.keys().filter(|key| !model.contains_key(key)).copied().collect();
                    prop_assert_eq!(open.missing(&gone).unwrap(), gone);
                    assert_only(open, &model);
                }
                Step::Rebuild => { open.rebuild_index().unwrap(); }
                Step::Reopen | Step::ForgetIndex => {
                    drop(store.take());
                    if matches!(step, Step::ForgetIndex) {
                        std::fs::remove_file(folder.path().join("index.db")).unwrap();
                    }
                    store = Some(FsStore::open(folder.path(), &small_packs()).unwrap());
                }
            }
            let open = store.as_ref().unwrap();
            assert_holds(open, &model);
            assert_eq!(open.recovery().damages, []);
        }
        let never_put = key_of(b"never put");
        prop_assert_eq!(store.unwrap().missing(&[never_put]).unwrap(), vec![never_put]);
    }
}
