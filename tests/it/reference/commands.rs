//! The commands, from the command line's definition.

use super::{heading, row};
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use offbuild::cli::Cli;

pub fn write(text: &mut String) {
    let mut cli = Cli::command();
    cli.build();
    text.push_str("\n## Commands\n\nOptions of every command:\n\n");
    let globals: Vec<&Arg> = cli.get_arguments().filter(|arg| arg.is_global_set()).collect();
    table(text, &globals);
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let mut command: Command = command.clone();
        text.push_str(&format!("\n### offbuild {}\n\n", command.get_name()));
        if let Some(about) = command.get_long_about().or(command.get_about()) {
            text.push_str(&format!("{about}.\n\n"));
        }
        let usage = command.render_usage().to_string();
        text.push_str(&format!("    {}\n", usage.trim_start_matches("Usage: ").trim().replace('\n', "\n    ")));
        let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
        let args: Vec<&Arg> = command.get_arguments().filter(own).collect();
        if !args.is_empty() {
            text.push('\n');
            table(text, &args);
        }
    }
}

fn table(text: &mut String, args: &[&Arg]) {
    heading(text, &["option", "default", "what"]);
    for arg in args {
        let default: Vec<String> = arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let default = if takes_value { default.join(", ") } else { String::new() };
        let mut what = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        if let Some(variable) = arg.get_env() {
            what.push_str(&format!("; the variable `{}` says the same", variable.to_string_lossy()));
        }
        let values: Vec<String> = if takes_value {
            let word = |value: &clap::builder::PossibleValue| match value.get_help() {
                Some(help) => format!("`{}` ({})", value.get_name(), help.to_string().trim_end_matches('.')),
                None => format!("`{}`", value.get_name()),
            };
            arg.get_possible_values().iter().filter(|value| !value.is_hide_set()).map(word).collect()
        } else {
            Vec::new()
        };
        if !values.is_empty() {
            what.push_str(&format!(": {}", values.join(", ")));
        }
        row(text, &[&format!("`{}`", spelled(arg)), &default, &what]);
    }
}

fn spelled(arg: &Arg) -> String {
    let names: Vec<String> =
        arg.get_short().map(|short| format!("-{short}")).into_iter().chain(arg.get_long().map(|long| format!("--{long}"))).collect();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let values: Vec<&str> = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let values = if values.is_empty() { arg.get_id().to_string().to_uppercase() } else { values.join(" ") };
    let optional = !names.is_empty() && arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let values = if optional { format!("[{values}]") } else { values };
    match (names.is_empty(), takes_value) {
        (true, _) => values,
        (false, true) => format!("{} {values}", names.join(", ")),
        (false, false) => names.join(", "),
    }
}
