"""Runs the examples in the docstrings of the public API."""

import doctest
import inspect

from experiments import api_reference
import jumprelu

_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def docstrings():
  """Returns the docstring of each public function, class and method."""
  texts = {'jumprelu': jumprelu.__doc__}
  for name in jumprelu.__all__:
    value = getattr(jumprelu, name)
    if callable(value):
      texts[name] = inspect.getdoc(value)
    if inspect.isclass(value):
      for member, function in api_reference.members(value):
        texts[f'{name}.{member}'] = inspect.getdoc(function)
  for value in api_reference.results():
    texts[value.__name__] = inspect.getdoc(value)
    for member, function in api_reference.members(value):
      texts[f'{value.__name__}.{member}'] = inspect.getdoc(function)
  return {name: text for name, text in texts.items() if text}


def run(name, namespace):
  """Runs the examples of one docstring, and returns their number."""
  test = doctest.DocTestParser().get_doctest(
      docstrings()[name], dict(namespace), name, None, 0
  )
  runner, failures = doctest.DocTestRunner(optionflags=_OPTIONS), []
  results = runner.run(test, out=failures.append)
  assert not results.failed, ''.join(failures)
  return results.attempted
