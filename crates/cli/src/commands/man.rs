//! `plumb completions` and `plumb man`: what shells and man(1) want, out of the arguments themselves.

use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;
use crate::error::CliError;
use crate::out::{self, Exit};

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "plumb", &mut script);
    out::print(&String::from_utf8_lossy(&script));
    Exit::Fine
}

/// Prints the page plumb(1), or writes it and one for each command into a folder.
pub fn run(folder: Option<&Path>) -> Result<Exit, CliError> {
    let mut command = Cli::command();
    // Texts are broken by man(1), to the width that it has.
    command = command.term_width(0);
    command.build();
    let Some(folder) = folder else {
        let page = page(&command).map_err(CliError::file("write", "standard output"))?;
        out::print(&String::from_utf8_lossy(&page));
        return Ok(Exit::Fine);
    };
    std::fs::create_dir_all(folder).map_err(CliError::file("create", folder))?;
    let written = write_all(&command, "plumb", folder)?;
    out::line(&format!(
        "{written} pages written to {}; read one with: man -l {}",
        folder.display(),
        folder.join("plumb.1").display()
    ));
    Ok(Exit::Fine)
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

/// Writes the page of a command and of those beneath it: how many.
fn write_all(command: &clap::Command, name: &str, folder: &Path) -> Result<usize, CliError> {
    let path = folder.join(format!("{name}.1"));
    let page = page(command).map_err(CliError::file("write", &path))?;
    std::fs::write(&path, page).map_err(CliError::file("write", &path))?;
    let mut written = 1;
    for beneath in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = format!("{name}-{}", beneath.get_name());
        written += write_all(beneath, &name, folder)?;
    }
    Ok(written)
}
