"""Commands: one module each, the only modules with flags.

A command `NAME` is the module `jumprelu/run/NAME.py`, listed in
`main.COMMANDS`, and holds:

  a docstring        the command's help: a one-line summary, the background that
                     a newcomer needs, then examples (`  jumprelu NAME
                     --flag=value`). The module's imports stay light: modules
                     that only `run` needs are imported inside functions.
  POSITIONAL         optional: the flag that a bare argument sets, so that
                     `jumprelu verify DIR` means `--release=DIR`. A list flag
                     accepts several bare arguments.
  EXTRA              optional: the extra of setup.py that the command needs; if
                     one of its libraries is missing, a one-line error names
                     the extra to install.
  define_flags(fv)   declares the flags on `fv`, an `absl.flags.FlagValues` of
                     this command alone: `flags.DEFINE_string('out', None,
                     'help', flag_values=fv)` for single flags, and
                     `jumprelu.run.flags.define(fv, config)` for a dataclass.
                     `--help` and `--debug` exist already.
  run(fv)            does the work; returns None or an exit code. Flags are
                     read as `fv.out` and `flags.build(fv, config)`. Bad input
                     raises an error of `jumprelu/errors.py` before any device
                     is used; `main.launch` converts it to one line on stderr
                     and an exit code. Output for the user is printed to
                     stdout; absl's log is shown with --debug only.

A training config has recipes; its flags are declared and read by

  flags.define(fv, config.resolve(), alternatives=config.other_recipes())
  resolved = flags.build(fv, config.resolve(), config.resolve)

So that `python -m jumprelu.run.NAME` is equivalent, a module ends with

  if __name__ == '__main__':
    sys.exit(main.launch('NAME'))
"""
