"""The clouds' names for a TPU slice."""

import pytest

from jumprelu import errors
from launch import tpu_types


@pytest.mark.parametrize(
    'accelerator, topology, hosts, chips_a_host, machine, gcloud_type',
    [
        ('v5e', '1x1', 1, 1, 'ct5lp-hightpu-1t', 'v5litepod-1'),
        ('v5e', '2x2', 1, 4, 'ct5lp-hightpu-4t', 'v5litepod-4'),
        ('v5e', '4x4', 4, 4, 'ct5lp-hightpu-4t', 'v5litepod-16'),
        ('v5e', '16x16', 64, 4, 'ct5lp-hightpu-4t', 'v5litepod-256'),
        ('v6e', '4x4', 4, 4, 'ct6e-standard-4t', 'v6e-16'),
        # gcloud counts cores: two per chip.
        ('v5p', '2x2x1', 1, 4, 'ct5p-hightpu-4t', 'v5p-8'),
        ('v5p', '2x2x2', 2, 4, 'ct5p-hightpu-4t', 'v5p-16'),
        ('v4', '4x4x4', 16, 4, 'ct4p-hightpu-4t', 'v4-128'),
    ],
)
def test_a_slice_has_its_hosts_and_names(
    accelerator, topology, hosts, chips_a_host, machine, gcloud_type
):
  tpu_slice = tpu_types.make_slice(accelerator, topology)
  assert (tpu_slice.hosts, tpu_slice.chips_a_host) == (hosts, chips_a_host)
  assert (tpu_slice.machine, tpu_slice.gcloud_type) == (machine, gcloud_type)


@pytest.mark.parametrize('accelerator', tpu_types.ACCELERATORS)
def test_every_slice_consists_of_whole_hosts(accelerator):
  for topology in tpu_types.ACCELERATORS[accelerator].topologies:
    tpu_slice = tpu_types.make_slice(accelerator, topology)
    assert tpu_slice.hosts * tpu_slice.chips_a_host == tpu_slice.chips


def test_an_unknown_slice_names_the_known_ones():
  with pytest.raises(errors.UserError, match='did you mean v5e'):
    tpu_types.make_slice('v5ee', '4x4')
  with pytest.raises(errors.UserError, match='1x1, 2x2, 2x4'):
    tpu_types.make_slice('v5e', '3x3')
