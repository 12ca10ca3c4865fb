//! `tenantry keys`

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use tempfile::tempdir;

use super::{run, word_after};

const FILES: [&str; 4] = ["access.pem", "access.pub.pem", "refresh.pem", "refresh.pub.pem"];

/// Contents of the four key files.
fn file_contents(dir: &Path) -> Vec<String> {
    FILES.map(|file| fs::read_to_string(dir.join(file)).expect(file)).to_vec()
}

#[tokio::test]
async fn a_second_generate_command_changes_no_keys() {
    let temp_dir = tempdir().expect("a folder");
    let key_dir = temp_dir.path().join("keys");
    let key_dir_path = key_dir.to_str().expect("text");

    let first_output = run(&["keys", "generate", "--dir", key_dir_path], &[]).await;
    assert!(first_output.ok && first_output.out.contains("made keys in"), "{first_output:?}");
    let files = file_contents(&key_dir);
    for private in ["access.pem", "refresh.pem"] {
        let mode = fs::metadata(key_dir.join(private)).expect(private).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    let second_output = run(&["keys", "generate", "--dir", key_dir_path], &[]).await;
    assert!(second_output.ok && second_output.out.contains("already"), "{second_output:?}");
    assert_eq!(file_contents(&key_dir), files);

    let list_output = run(&["keys", "list", "--dir", key_dir_path], &[]).await;
    assert!(list_output.ok, "{list_output:?}");
    let kids = ["access", "refresh"].map(|kind| word_after(&list_output.out, kind));
    assert!(kids[0] != kids[1] && kids.iter().all(|kid| kid.len() == 43), "{list_output:?}");
    assert_eq!(kids, ["access", "refresh"].map(|kind| word_after(&first_output.out, kind)));
    for output in [first_output, second_output, list_output] {
        assert!(!output.out.contains("PRIVATE") && output.err.is_empty(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_generate_commands_create_the_keys_once() {
    let temp_dir = tempdir().expect("a folder");
    let key_dir_path = temp_dir.path().to_str().expect("text");
    let generate = ["keys", "generate", "--algorithm", "ES256", "--dir", key_dir_path];
    let outputs = futures::future::join_all((0..8).map(|_| run(&generate, &[]))).await;
    let created_count = outputs.iter().filter(|output| output.out.contains("made keys in")).count();
    assert_eq!(created_count, 1, "{outputs:?}");
    assert!(outputs.iter().all(|output| output.ok), "{outputs:?}");
    let list_output = run(&["keys", "list", "--dir", key_dir_path], &[]).await;
    assert!(list_output.ok, "{list_output:?}");
}

#[tokio::test]
async fn missing_key_files_are_not_added_to_existing_key_files() {
    let temp_dir = tempdir().expect("a folder");
    let key_dir_path = temp_dir.path().to_str().expect("text");
    fs::write(temp_dir.path().join("refresh.pem"), "existing content").expect("written");

    let output = run(&["keys", "generate", "--dir", key_dir_path], &[]).await;
    assert!(
        !output.ok && output.err.contains("refresh.pem is there without the other keys"),
        "{output:?}"
    );
    assert_eq!(fs::read_dir(temp_dir.path()).expect("a folder").count(), 1);
    let content = fs::read_to_string(temp_dir.path().join("refresh.pem")).expect("a file");
    assert_eq!(content, "existing content");
}

#[tokio::test]
async fn listing_an_empty_folder_fails() {
    let temp_dir = tempdir().expect("a folder");
    let key_dir_path = temp_dir.path().to_str().expect("text");

    let output = run(&["keys", "list", "--dir", key_dir_path], &[]).await;
    assert!(!output.ok && output.err.contains("can't read"), "{output:?}");
    assert_eq!(fs::read_dir(temp_dir.path()).expect("a folder").count(), 0);
}

/// Type and state of each key, as `list` and `rotate` print them.
fn key_states(text: &str) -> Vec<(String, String)> {
    let lines =
        text.lines().filter(|line| line.starts_with("access") || line.starts_with("refresh"));
    lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[0].to_owned(), words[2].to_owned())
        })
        .collect()
}

fn expected_states(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states.iter().map(|(kind, state)| ((*kind).to_owned(), (*state).to_owned())).collect()
}

#[tokio::test]
async fn a_rotation_publishes_then_signs_then_retires_a_key() {
    let temp_dir = tempdir().expect("a folder");
    let key_dir_path = temp_dir.path().to_str().expect("text");
    let run_keys = async |arguments: &[&str]| {
        let output = run(&[&["keys"], arguments, &["--dir", key_dir_path]].concat(), &[]).await;
        assert!(
            output.ok && output.err.is_empty() && !output.out.contains("PRIVATE"),
            "{output:?}"
        );
        output.out
    };
    let first_output = run_keys(&["generate", "--algorithm", "ES256"]).await;
    assert!(first_output.contains("ES256"), "{first_output}");

    let with_published_keys = expected_states(&[
        ("access", "signing"),
        ("access", "published"),
        ("refresh", "signing"),
        ("refresh", "published"),
    ]);
    assert_eq!(key_states(&run_keys(&["rotate", "--ahead", "1h"]).await), with_published_keys);
    let files = file_contents(temp_dir.path());
    assert!(run_keys(&["rotate", "--ahead", "1h"]).await.contains("no keys were added"));
    assert_eq!(
        file_contents(temp_dir.path()),
        files,
        "a second rotation adds no keys before the first rotation ends"
    );
    for private in ["access.pem", "refresh.pem"] {
        let mode = fs::metadata(temp_dir.path().join(private)).expect(private).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }

    // Change the start times, as if the new keys had signed for two days.
    for file in FILES {
        let path = temp_dir.path().join(file);
        let text = fs::read_to_string(&path).expect("a file");
        let (text_before, text_after) = text.split_once("signs from ").expect("a time");
        let (_, text_after) = text_after.split_once('\n').expect("a line");
        let past = time::OffsetDateTime::now_utc() - time::Duration::days(2);
        let past = past.format(&time::format_description::well_known::Rfc3339).expect("text");
        fs::write(&path, format!("{text_before}signs from {past}\n{text_after}")).expect("written");
    }
    let states = key_states(&run_keys(&["retire"]).await);
    assert_eq!(
        states,
        expected_states(&[("access", "signing"), ("refresh", "retired"), ("refresh", "signing")]),
        "the replaced refresh key verifies tokens for 30 days"
    );
    let private = fs::read_to_string(temp_dir.path().join("refresh.pem")).expect("a file");
    assert_eq!(private.matches("-----BEGIN").count(), 1, "the replaced private key is not deleted");
    let retired = run_keys(&["retire", "--jwt-refresh-expires-in", "1h"]).await;
    assert_eq!(
        key_states(&retired),
        expected_states(&[("access", "signing"), ("refresh", "signing")])
    );

    let kids = ["access", "refresh"].map(|kind| word_after(&retired, kind).to_owned());
    let rotated = run_keys(&["rotate", "--compromised", "--algorithm", "EdDSA"]).await;
    assert_eq!(
        key_states(&rotated),
        expected_states(&[("access", "signing"), ("refresh", "signing")])
    );
    assert!(kids.iter().all(|kid| !rotated.contains(kid)) && rotated.contains("EdDSA"));
}

#[tokio::test]
async fn rotating_or_retiring_without_keys_fails() {
    let temp_dir = tempdir().expect("a folder");
    let key_dir_path = temp_dir.path().to_str().expect("text");
    for arguments in [&["rotate"][..], &["rotate", "--compromised"], &["retire"]] {
        let output = run(&[&["keys"], arguments, &["--dir", key_dir_path]].concat(), &[]).await;
        assert!(!output.ok && output.err.contains("can't read"), "{output:?}");
    }
    assert_eq!(fs::read_dir(temp_dir.path()).expect("a folder").count(), 0);
}

/// N37: after a replacement, the service's user can still read the files of signing keys and of
/// master keys.
#[tokio::test]
async fn replaced_files_keep_their_owner_group_and_mode() {
    let temp_dir = tempdir().expect("a folder");
    let path = |name: &str| temp_dir.path().join(name);
    let dir = temp_dir.path().to_str().expect("text");
    assert!(run(&["keys", "generate", "--algorithm", "EdDSA", "--dir", dir], &[]).await.ok);
    let master = path("master.keys").display().to_string();
    assert!(run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &master)]).await.ok);
    let files = FILES.map(str::to_owned).into_iter().chain(["master.keys".to_owned()]);
    for name in files.clone() {
        // Only root may give a file to another user. Everybody may change the mode.
        if rustix::process::geteuid().is_root() {
            chown(path(&name), Some(4321), Some(1234)).expect("root may change the owner");
        }
        fs::set_permissions(path(&name), fs::Permissions::from_mode(0o640)).expect("changed");
    }
    // An orchestrator may provide the files as symbolic links.
    fs::rename(path("access.pem"), path("linked.pem")).expect("renamed");
    symlink(path("linked.pem"), path("access.pem")).expect("linked");
    let facts = || {
        let file_facts = |name: &String| {
            let file = fs::metadata(path(name)).expect(name);
            (file.uid(), file.gid(), file.mode() & 0o7777)
        };
        files.clone().map(|name| file_facts(&name)).collect::<Vec<_>>()
    };
    let facts_before = facts();
    let contents_before = file_contents(temp_dir.path());

    assert!(run(&["keys", "rotate", "--dir", dir], &[]).await.ok);
    tenantry::privacy::add_key(Path::new(&master)).expect("added");

    assert_eq!(facts(), facts_before);
    let contents = file_contents(temp_dir.path());
    assert!(contents.iter().zip(&contents_before).all(|(new, old)| new != old));
    assert!(fs::symlink_metadata(path("access.pem")).expect("a link").is_symlink());
    // The command leaves no temporary file.
    let names = fs::read_dir(temp_dir.path()).expect("a folder");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    assert!(
        names.map(|name| name.into_string().expect("text")).all(|name| !name.contains("draft"))
    );
}
