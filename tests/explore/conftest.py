"""The page of a small release, and a decoder of its containers."""

import base64
import gzip
import json
import re

import numpy as np
import pytest

from jumprelu.explore import release_page, write
from tests.features import conftest as features

release, model, folder = features.release, features.model, features.folder

_TYPES = {'i1': 'i1', 'u1': 'u1', 'u2': '<u2', 'i4': '<i4', 'f4': '<f4'}


def unpack(container):
  """Returns the arrays of a container, as its documentation describes them."""
  size = int.from_bytes(container[:4], 'little')
  header = json.loads(container[4 : 4 + size])
  body = container[4 + size :]
  out = {}
  for name, (kind, shape, offset) in header.items():
    assert offset % 8 == 0 and (4 + size) % 8 == 0
    if kind == 'json':
      out[name] = json.loads(body[offset : offset + shape[0]])
      continue
    dtype = np.dtype(_TYPES[kind])
    count = int(np.prod(shape))
    out[name] = np.frombuffer(body, dtype, count, offset).reshape(shape)
  return out


def read_page(html):
  """Returns the index of a page, and the arrays of its containers by name."""
  index = re.search(r'id="jumprelu-index">(.*?)</script>', html, re.S)[1]
  blobs = re.findall(r'data-blob="([^"]+)">([^<]*)</script>', html)
  arrays = {
      name: unpack(gzip.decompress(base64.b64decode(text)))
      for name, text in blobs
  }
  return json.loads(index), arrays


def read_page_data(page):
  """Returns the index of a page's data, and its arrays by name."""
  return page.index, {name: unpack(part) for name, part in page.containers()}


@pytest.fixture(scope='session')
def page_data(release, folder):
  return release_page.data(release, folder)


@pytest.fixture(scope='session')
def page_file(page_data, tmp_path_factory):
  path = tmp_path_factory.mktemp('page') / 'page.html'
  write.write_file(page_data, path)
  return path


@pytest.fixture(scope='session')
def page(page_file):
  return read_page(page_file.read_text('utf-8'))
