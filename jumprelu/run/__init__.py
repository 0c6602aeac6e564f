"""Commands: one module each, the only places with flags.

A command `NAME` is the module `jumprelu/run/NAME.py`, listed in
`main.COMMANDS`, and holds:

  a docstring        the command's help: first line one sentence that says what
                     it is for, then whatever a newcomer needs, then examples
                     (`  jumprelu NAME --flag=value`). Imports at its top stay
                     light: nothing that is needed only after the flags are
                     known to be good.
  POSITIONAL         optional: the name of a flag that one bare argument sets,
                     so that `jumprelu verify DIR` is `--release=DIR`; where it
                     is a list, several arguments do.
  EXTRA              optional: the extra of setup.py that the command needs; where
                     a library of it is missing, one line says what to install.
  define_flags(fv)   declares the flags on `fv`, an `absl.flags.FlagValues` of
                     this command alone: `flags.DEFINE_string('out', None,
                     'help', flag_values=fv)` for the command's own, and
                     `jumprelu.flags.define(fv, config)` for a dataclass.
                     `--help` and `--debug` are there already.
  run(fv)            does the work; returns None or an exit code. Flags are
                     read as `fv.out` and `jumprelu.flags.build(fv, config)`.
                     Bad input raises an error of `jumprelu/errors.py` before
                     any device is touched; `main.launch` makes of it one line
                     on stderr and its exit code. What the user should see is
                     printed to stdout; absl's log is for the curious (--debug).

A training config has recipes; its flags are made and read by

  flags.define(fv, config.resolve(), alternatives=config.other_recipes())
  resolved = flags.build(fv, config.resolve(), config.resolve)

A module ends, so that `python -m jumprelu.run.NAME` is the same thing, with

  if __name__ == '__main__':
    sys.exit(main.launch('NAME'))
"""
