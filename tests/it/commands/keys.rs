//! `tenantry keys`

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::tempdir;

use super::{run, word_after};

const FILES: [&str; 4] = ["access.pem", "access.pub.pem", "refresh.pem", "refresh.pub.pem"];

fn contents(dir: &Path) -> Vec<String> {
    FILES.map(|file| fs::read_to_string(dir.join(file)).expect(file)).to_vec()
}

#[tokio::test]
async fn keys_are_generated_once_and_then_kept() {
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

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_generations_create_the_keys_once() {
    let place = tempdir().expect("a folder");
    let folder = place.path().to_str().expect("text");
    let generate = ["keys", "generate", "--algorithm", "ES256", "--dir", folder];
    let all = futures::future::join_all((0..8).map(|_| run(&generate, &[]))).await;
    let made = all.iter().filter(|ran| ran.out.contains("made keys in")).count();
    assert_eq!(made, 1, "{all:?}");
    assert!(all.iter().all(|ran| ran.ok), "{all:?}");
    let list = run(&["keys", "list", "--dir", folder], &[]).await;
    assert!(list.ok, "{list:?}");
}

#[tokio::test]
async fn an_incomplete_set_of_files_is_not_completed() {
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
async fn listing_an_empty_folder_fails() {
    let place = tempdir().expect("a folder");
    let folder = place.path().to_str().expect("text");

    let ran = run(&["keys", "list", "--dir", folder], &[]).await;
    assert!(!ran.ok && ran.err.contains("can't read"), "{ran:?}");
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
}

/// Keys with their states, as `list` and `rotate` print them.
fn states(text: &str) -> Vec<(String, String)> {
    let lines =
        text.lines().filter(|line| line.starts_with("access") || line.starts_with("refresh"));
    lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[0].to_owned(), words[2].to_owned())
        })
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(kind, state)| ((*kind).to_owned(), (*state).to_owned())).collect()
}

#[tokio::test]
async fn a_rotation_publishes_then_signs_then_retires_a_key() {
    let place = tempdir().expect("a folder");
    let folder = place.path().to_str().expect("text");
    let keys = async |arguments: &[&str]| {
        let ran = run(&[&["keys"], arguments, &["--dir", folder]].concat(), &[]).await;
        assert!(ran.ok && ran.err.is_empty() && !ran.out.contains("PRIVATE"), "{ran:?}");
        ran.out
    };
    let first = keys(&["generate", "--algorithm", "ES256"]).await;
    assert!(first.contains("ES256"), "{first}");

    let waiting = pairs(&[
        ("access", "signing"),
        ("access", "published"),
        ("refresh", "signing"),
        ("refresh", "published"),
    ]);
    assert_eq!(states(&keys(&["rotate", "--ahead", "1h"]).await), waiting);
    let files = contents(place.path());
    assert!(keys(&["rotate", "--ahead", "1h"]).await.contains("no keys were added"));
    assert_eq!(contents(place.path()), files, "a second rotation must wait for the first");
    for private in ["access.pem", "refresh.pem"] {
        let mode = fs::metadata(place.path().join(private)).expect(private).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }

    // Move the start times two days into the past, so that the new keys have signed since.
    for file in FILES {
        let path = place.path().join(file);
        let text = fs::read_to_string(&path).expect("a file");
        let (head, tail) = text.split_once("signs from ").expect("a time");
        let (_, tail) = tail.split_once('\n').expect("a line");
        let past = time::OffsetDateTime::now_utc() - time::Duration::days(2);
        let past = past.format(&time::format_description::well_known::Rfc3339).expect("text");
        fs::write(&path, format!("{head}signs from {past}\n{tail}")).expect("written");
    }
    let retired = states(&keys(&["retire"]).await);
    assert_eq!(
        retired,
        pairs(&[("access", "signing"), ("refresh", "retired"), ("refresh", "signing")]),
        "refresh tokens live for 30 days"
    );
    let private = fs::read_to_string(place.path().join("refresh.pem")).expect("a file");
    assert_eq!(private.matches("-----BEGIN").count(), 1, "the replaced private key is deleted");
    let retired = keys(&["retire", "--jwt-refresh-expires-in", "1h"]).await;
    assert_eq!(states(&retired), pairs(&[("access", "signing"), ("refresh", "signing")]));

    let kids = ["access", "refresh"].map(|kind| word_after(&retired, kind).to_owned());
    let replaced = keys(&["rotate", "--compromised", "--algorithm", "EdDSA"]).await;
    assert_eq!(states(&replaced), pairs(&[("access", "signing"), ("refresh", "signing")]));
    assert!(kids.iter().all(|kid| !replaced.contains(kid)) && replaced.contains("EdDSA"));
}

#[tokio::test]
async fn unusable_keys_are_not_rotated() {
    let place = tempdir().expect("a folder");
    let folder = place.path().to_str().expect("text");
    for arguments in [&["rotate"][..], &["rotate", "--compromised"], &["retire"]] {
        let ran = run(&[&["keys"], arguments, &["--dir", folder]].concat(), &[]).await;
        assert!(!ran.ok && ran.err.contains("can't read"), "{ran:?}");
    }
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
}
