"How Sphinx makes the site. Start it through build.py, which writes the pages' sources first."
import html, re, sys
from pathlib import Path

import ziamath
from docutils import nodes

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from pages import CFG, SITE

project, author, release = CFG['title'], CFG['author'], CFG['version']
project_copyright = CFG['copyright']
extensions = ['myst_nb']
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_heading_anchors = 3
nb_execution_mode = 'off'
nb_merge_streams = True
html_theme = 'sphinx_book_theme'
html_title = CFG['title']
html_baseurl = f'{SITE}/'
templates_path = [str(HERE/'_templates')]
exclude_patterns = ['extra', 'static'] # they go into the site as they are
html_favicon = '_static/icon.svg'
html_context = {'default_mode': 'auto'} # dark or light as the reader's system
html_css_files = ['site.css']
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = 'drawn'
smartquotes = False
html_theme_options = dict(use_download_button=False, use_fullscreen_button=False, show_navbar_depth=1, show_toc_level=2,
                          back_to_top_button=False, footer_content_items=['copyright.html'],
                          toc_title='On this page', search_bar_text='Search the course')

ziamath.config.svg2 = False # each formula draws itself: no ids that a page has twice
ziamath.config.math.color = 'currentColor'

def formula(node, inline):
    "A formula as a drawing that stands on the line of its text: needs no script, no font and no network."
    tex = node.astext().strip()
    drawn = ziamath.Latex(tex, size=17.5, inline=inline)
    label = f'role="img" aria-label="{html.escape(tex)}" style="vertical-align: {drawn.getyofst():.2f}px"'
    return drawn.svg().replace('<svg', f'<svg {label}', 1)

def inline_math(self, node):
    self.body.append(f'<span class="formula">{formula(node, True)}</span>')
    raise nodes.SkipNode

def block_math(self, node):
    self.body.append(f'<div class="formula">{formula(node, False)}</div>')
    raise nodes.SkipNode

def scripts_of_the_page(app, pagename, templatename, context, doctree):
    "Widgets and sortable tables load what they need on their own pages only."
    body = context.get('body', '')
    if 'class="sortable"' in body: app.add_js_file('tables.js', loading_method='defer')
    names = re.findall(r'class="widget" data-widget="([^"]+)"', body)
    if names: app.add_css_file('widgets/widgets.css')
    for name in (['ui'] if names else []) + names: app.add_js_file(f'widgets/{name}.js', loading_method='defer')
    context['body'] = body.replace('<img alt="Figure made', '<img loading="lazy" alt="Figure made')

def setup(app):
    app.config.html_extra_path, app.config.html_static_path = [f'{app.srcdir}/extra'], [f'{app.srcdir}/static']
    app.add_html_math_renderer('drawn', (inline_math, None), (block_math, None))
    app.connect('html-page-context', scripts_of_the_page)
