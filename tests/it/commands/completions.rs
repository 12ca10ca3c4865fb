//! `tenantry completions`

use super::run;

#[tokio::test]
async fn the_completions_of_each_shell_have_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell], &[]).await;
        assert!(output.ok, "{output:?}");
        for command in ["serve", "migrate", "master-key", "rotate"] {
            assert!(output.out.contains(command), "{shell}: {command}");
        }
    }
    let unknown_shell = run(&["completions", "cmd"], &[]).await;
    assert!(
        !unknown_shell.ok && unknown_shell.err.contains("possible values"),
        "{unknown_shell:?}"
    );
}
