"""Keys, themes, widths of windows, and names and contrast of all parts."""

import re

import pytest

from tests.browser.pages import expect

pytestmark = pytest.mark.browser

WIDTHS = (360, 1280, 1920)
# A view with its fragment; {link} is a member.
VIEWS = {
    'overview': '',
    'member': '{link}',
    'latent': '{link}/172',
    'search': 'search?q=lineno',
    'empty search': 'search',
    'texts': 'texts?p=0&a={link}&b={other}',
    'wrong address': 'no_such/1',
}


def fragment(demo, view):
  """Returns the fragment of the address of a view."""
  return VIEWS[view].format(
      link=demo.member()['link'], other=demo.member(site='mlp_out')['link']
  )


def ready(page, view):
  """Waits until a view has its data."""
  marks = {
      'overview': page.get_by_role('heading', name='Random latents').locator(
          'xpath=ancestor::section//li//a'
      ),
      'member': page.get_by_role('table', name=re.compile('^Latents of')),
      'latent': page.get_by_role('heading', name='Examples'),
      'search': page.get_by_role('table', name=re.compile('^Latents that')),
      'empty search': page.get_by_role('group', name='Where'),
      'texts': page.get_by_role('group', name=re.compile('^Text')),
      'wrong address': page.get_by_role('alert'),
  }
  expect(marks[view].first).to_be_visible()
  # Charts are drawn by an observer of sizes.
  page.evaluate('() => new Promise(requestAnimationFrame)')
  page.wait_for_timeout(100)


OVERFLOW = """() => {
  const page = document.documentElement;
  const over = Math.max(page.scrollWidth, document.body.scrollWidth) - innerWidth;
  if (over <= 0) return [];
  const wide = [...document.body.querySelectorAll('*')].filter(
      e => e.getBoundingClientRect().right > innerWidth + 1);
  return [over, ...wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120))];
}"""


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('view', VIEWS)
def test_the_page_never_scrolls_sideways(open_demo, demo, view, width):
  page = open_demo(fragment(demo, view), width=width)
  ready(page, view)
  assert page.evaluate(OVERFLOW) == []


SMALL = """least => [...document.querySelectorAll(
    'button, a[href], select, input:not([type="file"]), textarea, [role="tab"]')]
  .filter(e => e.checkVisibility({visibilityProperty: true, opacityProperty: true}))
  .filter(e => e.tagName !== 'A' || getComputedStyle(e).display !== 'inline')
  .map(e => [e.closest('label')?.matches('.check, label:has(input[type=checkbox])')
      ? e.closest('label').getBoundingClientRect() : e.getBoundingClientRect(), e])
  .filter(([box]) => box.width > 1 && box.right > 0 && box.bottom > -scrollY
      && (box.height < least || box.width < least))
  .map(([box, e]) => `${Math.round(box.width)}x${Math.round(box.height)} `
      + e.outerHTML.slice(0, 100))"""


@pytest.mark.parametrize('view', ['overview', 'member', 'latent', 'texts'])
def test_controls_are_large_enough_for_a_finger(open_demo, demo, view):
  page = open_demo(fragment(demo, view), width=360)
  ready(page, view)
  # WCAG 2.2, 2.5.8: 24 pixels; links within text are exempt.
  assert page.evaluate(SMALL, 24) == []


NAMELESS = """() => [...document.querySelectorAll(
    'button, a[href], input, select, textarea, [role="tab"], [role="img"], dialog')]
  .filter(e => !e.closest('[aria-hidden="true"]'))
  .filter(e => e.checkVisibility() || e.tagName === 'INPUT')
  .filter(e => {
    const by = e.getAttribute('aria-labelledby');
    const names = [e.getAttribute('aria-label'), e.title,
      by && document.getElementById(by)?.textContent,
      ...[...(e.labels ?? [])].map(label => label.textContent),
      /^(BUTTON|A)$/.test(e.tagName) ? e.textContent : ''];
    return !names.some(name => name?.trim());
  }).map(e => e.outerHTML.slice(0, 150))"""


@pytest.mark.parametrize('view', VIEWS)
def test_parts_have_names_and_there_is_one_heading(open_demo, demo, view):
  page = open_demo(fragment(demo, view))
  ready(page, view)
  assert page.evaluate(NAMELESS) == []
  assert page.evaluate('document.documentElement.lang') == 'en'
  expect(page.get_by_role('heading', level=1)).to_have_count(1)
  for landmark in ('banner', 'main', 'contentinfo'):
    expect(page.get_by_role(landmark)).to_have_count(1)
  levels = page.evaluate(
      '[...document.querySelectorAll("h1, h2, h3, h4")].map(e => +e.tagName[1])'
  )
  # No level is left out on the way down.
  assert all(b - a <= 1 for a, b in zip([0, *levels], levels, strict=False))
  ids = page.evaluate('[...document.querySelectorAll("[id]")].map(e => e.id)')
  assert len(set(ids)) == len(ids)


# Each visible text with the colours of its letters and of the ground.
CONTRAST = """least => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const paint = colors => {
    context.fillStyle = '#ffffff';
    context.fillRect(0, 0, 1, 1);
    for (const color of colors) {
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
    }
    return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const light = color => {
    const [r, g, b] = color.map(x => x / 255).map(
        x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const out = new Map();
  let texts = 0;
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3)
        .map(n => n.data.trim()).join('');
    const box = element.getBoundingClientRect();
    if (!text || box.width < 2 || !element.checkVisibility({opacityProperty: true}))
      continue;
    if (element.closest('script, style, noscript, option, svg')) continue;
    const under = [];
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      under.unshift(style.backgroundColor);
      opacity *= Number(style.opacity);
    }
    const ground = paint(under);
    const style = getComputedStyle(element);
    const ink = paint([...under, style.color])
        .map((x, i) => opacity * x + (1 - opacity) * ground[i]);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    texts++;
    // Signs of spaces and newlines are pictures: 3 to 1 suffices.
    if (ratio < (element.closest('.glyph') ? 3 : least)) {
      const key = `${element.tagName.toLowerCase()}.${element.className}`;
      out.set(key, `${ratio.toFixed(2)} ${key}: ${text.slice(0, 30)}`);
    }
  }
  return {texts, low: [...out.values()]};
}"""


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('view', ['overview', 'member', 'latent', 'texts'])
def test_all_text_has_contrast(open_demo, demo, view, scheme):
  page = open_demo(fragment(demo, view), scheme=scheme)
  ready(page, view)
  result = page.evaluate(CONTRAST, 4.5)
  assert result['texts'] > 50
  assert result['low'] == []


def _ground(page):
  return page.evaluate(
      'getComputedStyle(document.documentElement).backgroundColor'
  )


def test_the_theme_is_the_systems_until_the_reader_chooses(open_demo):
  light, dark = open_demo(), open_demo(scheme='dark')
  grounds = [_ground(light), _ground(dark)]
  assert grounds[0] != grounds[1]
  light.emulate_media(color_scheme='dark')
  assert _ground(light) == grounds[1]
  light.emulate_media(color_scheme='light')
  light.get_by_role('button', name='Dark theme').click()
  assert _ground(light) == grounds[1]
  light.reload()
  assert _ground(light) == grounds[1]
  light.keyboard.press('t')
  assert _ground(light) == grounds[0]
  light.emulate_media(color_scheme='dark')
  assert _ground(light) == grounds[0]


def test_the_help_lists_keys_and_closes(open_demo):
  page = open_demo()
  page.keyboard.press('?')
  dialog = page.get_by_role('dialog', name='Keys')
  expect(dialog).to_be_visible()
  text = dialog.inner_text()
  for key in ('/', '←', 'Esc', 'j', 'k'):
    assert key in text
  page.keyboard.press('Escape')
  expect(dialog).not_to_be_visible()
  page.get_by_role('button', name='Keys').click()
  expect(dialog).to_be_visible()
  dialog.get_by_role('button', name='Close').click()
  expect(dialog).not_to_be_visible()


def test_keys_lead_through_the_page(open_demo, demo):
  member = demo.member()
  page = open_demo(f'{member["link"]}/172')
  heading = page.get_by_role('heading', level=1)
  expect(heading).to_contain_text('172')
  page.keyboard.press('l')
  expect(page.get_by_label('Label', exact=True)).to_be_focused()
  page.keyboard.type('/jkt?')  # Letters, not keys.
  expect(page.get_by_label('Label', exact=True)).to_have_value('/jkt?')
  page.keyboard.press('Escape')
  page.keyboard.press('r')
  expect(page).to_have_url(re.compile(rf'#{member["link"]}/\d+$'))
  page.keyboard.press('u')
  expect(heading).to_contain_text(member['link'])
  page.keyboard.press('g')
  page.keyboard.press('o')
  expect(page.get_by_role('heading', name='Frontier')).to_be_visible()
  page.keyboard.press('g')
  page.keyboard.press('x')
  expect(heading).to_contain_text('Texts')
  page.keyboard.press('/')
  expect(page.get_by_role('banner').get_by_role('searchbox')).to_be_focused()


def test_tab_reaches_the_content_and_the_focus_is_seen(open_demo, demo):
  page = open_demo(demo.member()['link'])
  ready(page, 'member')
  skip = page.get_by_role('button', name='To the content')
  skip.focus()
  box = skip.bounding_box()
  assert box['x'] >= 0 and box['y'] >= 0
  page.keyboard.press('Enter')
  expect(page.get_by_role('main')).to_be_focused()
  for _ in range(12):
    page.keyboard.press('Tab')
    seen = page.evaluate("""() => {
      const style = getComputedStyle(document.activeElement);
      return style.outlineStyle !== 'none' || style.boxShadow !== 'none';
    }""")
    assert seen, page.evaluate('document.activeElement.outerHTML.slice(0, 200)')


def test_tabs_of_examples_change_by_arrow_keys(open_demo, demo):
  page = open_demo(f'{demo.member()["link"]}/172')
  page.get_by_role('tab', selected=True).focus()
  page.keyboard.press('ArrowRight')
  expect(page.get_by_role('tab', selected=True)).to_contain_text('Band')
  page.keyboard.press('ArrowLeft')
  expect(page.get_by_role('tab', selected=True)).to_contain_text('Strongest')


def test_movements_are_off_for_those_who_ask(open_demo):
  page = open_demo()
  page.emulate_media(reduced_motion='reduce')
  moving = page.evaluate("""[...document.querySelectorAll('*')].filter(e => {
    const style = getComputedStyle(e);
    return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0.01;
  }).map(e => e.outerHTML.slice(0, 100))""")
  assert moving == []
