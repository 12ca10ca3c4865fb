//! `tenantry keys`

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::tempdir;

use super::{run, word_after};

const FILES: [&str; 4] = ["access.pem", "access.pub.pem", "refresh.pem", "refresh.pub.pem"];

fn contents(dir: &Path) -> Vec<String> {
    FILES.map(|file| fs::read_to_string(dir.join(file)).expect(file)).to_vec()
}

#[tokio::test]
async fn keys_are_made_once_and_then_left_alone() {
    let place = tempdir().expect("a folder");
    let dir = place.path().join("keys");
    let folder = dir.to_str().expect("text");

    let first = run(&["keys", "generate", "--dir", folder], &[]).await;
    assert!(first.ok && first.out.contains("made keys in"), "{first:?}");
    let files = contents(&dir);
    for private in ["access.pem", "refresh.pem"] {
        let mode = fs::metadata(dir.join(private)).expect(private).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    let again = run(&["keys", "generate", "--dir", folder], &[]).await;
    assert!(again.ok && again.out.contains("already"), "{again:?}");
    assert_eq!(contents(&dir), files);

    let list = run(&["keys", "list", "--dir", folder], &[]).await;
    assert!(list.ok, "{list:?}");
    let kids = ["access", "refresh"].map(|kind| word_after(&list.out, kind));
    assert!(kids[0] != kids[1] && kids.iter().all(|kid| kid.len() == 43), "{list:?}");
    assert_eq!(kids, ["access", "refresh"].map(|kind| word_after(&first.out, kind)));
    for ran in [first, again, list] {
        assert!(!ran.out.contains("PRIVATE") && ran.err.is_empty(), "{ran:?}");
    }
}

#[tokio::test]
async fn some_of_the_files_are_not_completed() {
    let place = tempdir().expect("a folder");
    let folder = place.path().to_str().expect("text");
    fs::write(place.path().join("refresh.pem"), "somebody's").expect("written");

    let ran = run(&["keys", "generate", "--dir", folder], &[]).await;
    assert!(!ran.ok && ran.err.contains("refresh.pem is there without the other keys"), "{ran:?}");
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1);
    let kept = fs::read_to_string(place.path().join("refresh.pem")).expect("a file");
    assert_eq!(kept, "somebody's");
}

#[tokio::test]
async fn there_is_nothing_to_list_in_an_empty_folder() {
    let place = tempdir().expect("a folder");
    let folder = place.path().to_str().expect("text");

    let ran = run(&["keys", "list", "--dir", folder], &[]).await;
    assert!(!ran.ok && ran.err.contains("can't read"), "{ran:?}");
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
}
