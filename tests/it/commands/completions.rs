//! `tenantry completions`

use super::run;

#[tokio::test]
async fn the_completions_of_each_shell_have_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell], &[]).await;
        assert!(ran.ok, "{ran:?}");
        for word in ["serve", "migrate", "master-key", "rotate"] {
            assert!(ran.out.contains(word), "{shell}: {word}");
        }
    }
    let unknown = run(&["completions", "cmd"], &[]).await;
    assert!(!unknown.ok && unknown.err.contains("possible values"), "{unknown:?}");
}
