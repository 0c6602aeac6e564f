"""The commands, one module each; all flags of `jumprelu` are declared here.

A command `NAME` is the module `jumprelu/run/NAME.py`, is listed in
`main.COMMANDS`, and has these attributes:

  a docstring        the command's help: a one-line summary, the background that
                     a newcomer needs, then examples (`  jumprelu NAME
                     --flag=value`). The module's imports stay light: modules
                     that only `run` needs are imported inside functions.
  POSITIONAL         optional: the flag that a bare argument sets, so that
                     `jumprelu verify DIR` means `--release=DIR`. If it is a
                     list flag, several bare arguments are accepted.
  EXTRA              optional: the extra of setup.py whose libraries the
                     command needs. If a library is missing, a one-line error
                     names the extra to install.
  MAIN_FLAGS         optional: the flags that --help describes; --helpfull and
                     --help=SECTION describe the others. Without it, --help
                     describes all flags.
  define_flags(fv)   declares the flags on `fv`, an `absl.flags.FlagValues` of
                     this command alone: `flags.DEFINE_string('out', None,
                     'help', flag_values=fv)` for single flags, and
                     `jumprelu.run.flags.define(fv, config)` for a dataclass.
                     Every command also has `--help`, `--helpfull` and
                     `--debug`, which `main` declares.
  run(fv)            does the work; returns None or an exit code. Flags are
                     read as `fv.out` and `flags.build(fv, config)`. Bad input
                     raises an error of `jumprelu/errors.py`, before any device
                     is used where possible; `main.launch` converts it to one line on stderr
                     and an exit code. Output for the user is printed to
                     stdout. Of absl's log, only warnings and errors are shown
                     unless --debug is set.

The defaults of a training config depend on its recipe. Its flags are therefore
declared and read by

  flags.define(fv, config.resolve(), alternatives=config.other_recipes())
  resolved = flags.build(fv, config.resolve(), config.resolve)

A module ends with these lines, so that `python -m jumprelu.run.NAME` is
equivalent to `jumprelu NAME`:

  if __name__ == '__main__':
    sys.exit(main.launch('NAME'))
"""
