"""Tests of the errors after which the same command is to be run again."""

import errno

import pytest

from jumprelu import errors

# Of jaxlib 0.10, from processes on a busy machine.
_UNREACHED = (
    'UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED:'
    ' GetKeyValue() timed out with key: cpu:gloo/0,2048/1 and duration:'
    " 29.9999998s [type.googleapis.com/tensorflow.CoordinationServiceError='']"
)


@pytest.mark.parametrize(
    'error, words',
    [
        (RuntimeError(_UNREACHED), 'did not reach each other in time'),
        (OSError(errno.ENOSPC, 'No space left', '/a/b'), '/a/b: the disk is'),
        (RuntimeError('write: No space left on device'), 'the disk is full'),
    ],
)
def test_after_temporary_errors_the_same_command_is_advised(error, words):
  message = errors.temporary(error)
  assert words in message and 'run the same command again' in message
  assert errors.exit_code(error) == errors.EXIT_TRY_AGAIN


@pytest.mark.parametrize(
    'text',
    [
        # The other process may have failed by itself.
        'FAILED_PRECONDITION: Gloo AllGather failed: Connection reset by peer',
        'DEADLINE_EXCEEDED: of another service',
    ],
)
def test_a_lost_process_is_a_failure(text):
  assert not errors.temporary(RuntimeError(text))
  assert errors.exit_code(RuntimeError(text)) == 1
