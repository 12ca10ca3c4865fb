//! The output of the commands.

use std::io;

use super::binary_command;

/// The reader of the output may end early, as in `tenantry policies | head -3`.
#[tokio::test]
async fn a_command_does_not_panic_when_the_reader_of_its_output_has_closed() {
    for arguments in [&["policies"][..], &["completions", "bash"]] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let output = binary_command(arguments, &[])
            .stdout(writer)
            .output()
            .await
            .expect("the command starts");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success() && error.is_empty(), "{arguments:?}: {error}");
    }
}
