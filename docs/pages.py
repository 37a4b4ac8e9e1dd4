"Turns the notebooks, the documents, the modules and the study's tables into the sources of the site's pages."
import ast, base64, csv, html, io, json, os, re, shutil, struct, tokenize
from configparser import ConfigParser
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
INI = ConfigParser(delimiters=['='])
INI.read(ROOT/'settings.ini', encoding='utf-8')
CFG = INI['DEFAULT']
SITE = CFG['doc_host'] + CFG['doc_baseurl']
DOWNLOADS = 'notebooks' # where the site keeps the notebooks to download, and where Colab finds them
PUBLISHED = 'gh-pages' # the branch that holds the published site

DOCS = {'CONTRIBUTING.md': 'contributing', 'CHANGELOG.md': 'changelog', 'nbs/commands.md': 'commands',
        'nbs/plain_pytorch.md': 'plain_pytorch', 'nbs/results/README.md': 'record'}
CHAPTERS = sorted(o.stem for o in (ROOT/'nbs').glob('*.ipynb') if o.stem != 'index')
MODULES = {o.stem: o for o in (ROOT/CFG['lib_path']).glob('*.py') if o.stem not in ('__init__', '_modidx', 'all')}
MODULES = dict(sorted({**MODULES, 'scenes': ROOT/CFG['lib_path']/'scenes/__init__.py'}.items()))
TABLES = sorted((ROOT/'nbs/results').glob('*.csv'), key=lambda o: o.stem)
LINK = re.compile(r'(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))')

class BadSource(ValueError):
    "A page that cannot be made; the message says which, and why."

# ---- links and pictures

def site_pages():
    "Which page of the site a file of the repository is, with the anchor inside it."
    res = {'README.md': 'index.md', 'nbs/index.ipynb': 'index.md', **{k: f'{v}.md' for k,v in DOCS.items()}}
    res |= {f'nbs/{o}.ipynb': f'{o}.ipynb' for o in CHAPTERS}
    res |= {str(o.relative_to(ROOT)): f'api/{k}.md' for k,o in MODULES.items()}
    return res | {str(o.relative_to(ROOT)): f'tables.md#{o.stem}' for o in TABLES}

PAGES = site_pages()

def target(
    page, # the file that holds the link, relative to the repository
    link, # as it stands there, without an anchor
    anchor='', # `#...` behind it
    base='', # what the site's pages begin with; '': they are relative, as sources
):
    "Where a link of a file leads on the site, else in the repository; BadSource if to nothing."
    file = os.path.normpath(os.path.join(os.path.dirname(page), link))
    if not (ROOT/file).exists(): raise BadSource(f'{page} links to {link}, which does not exist')
    if file.startswith('images/'): return f'{base}{Path(file).with_suffix(".webp")}'
    if file in PAGES: return base + (re.sub(r'\.(md|ipynb)\b', '.html', PAGES[file]) if base else PAGES[file]) + anchor
    return f"{CFG['git_url']}/{'tree' if (ROOT/file).is_dir() else 'blob'}/{CFG['branch']}/{file}{anchor}"

def relink(text, page, base=''):
    "The Markdown of a file of the repository, with its links led to the site's pages."
    return LINK.sub(lambda m: m[1] + target(page, m[2], m[3] or '', base), text)

def copy_picture(file, folder):
    "A picture as WebP: drawn scenes take a sixth of their PNG, at a quality where no difference is seen."
    Image.open(file).convert('RGB').save(folder/f'{file.stem}.webp', quality=90, method=6)

# ---- widgets

def widget(m):
    "The figure that stands for a comment `<!--widget:NAME-->`."
    name, folder = m[1], ROOT/'docs/widgets'
    for end in ('js', 'png', 'txt'):
        if not (folder/f'{name}.{end}').exists(): raise BadSource(f'there is no docs/widgets/{name}.{end} for {m[0]}')
    alt = (folder/f'{name}.txt').read_text(encoding='utf-8').strip()
    width, height = Image.open(folder/f'{name}.png').size
    return (f'\n<figure class="widget" data-widget="{name}"><img src="_static/widgets/{name}.png" '
            f'alt="{html.escape(alt)}" width="{width}" height="{height}"></figure>\n')

def widgets(text): return re.sub(r'^[ \t]*<!-- *widget: *(\S+?) *-->[ \t]*$', widget, text, flags=re.M)

# ---- chapters

def directives(source): return re.findall(r'^#\|\s*(\w+)', source, re.M)

def summary(source, exported):
    "One line that stands for a collapsed cell."
    defs = re.findall(r'^(def|class) (\w+)', source, re.M)
    defs = [o for o in defs if o[1][0] != '_'] or defs
    if exported and defs: return ', '.join(f'{kind} {name}' + '(…)'*(kind == 'def') for kind,name in defs)
    lines = [o for o in source.splitlines() if o.strip() and not o.startswith(('#', '@', '"'))]
    return lines[0] + ' …'*(len(lines) > 1)

def output(o):
    "An output as it is shown; None for what is left of a progress bar."
    page = ''.join(o.get('data', {}).get('text/html', '-'))
    return None if not page.strip() or page.lstrip().startswith('<style>') and 'progress' in page else o

def code_cell(cell):
    "A code cell as the site shows it; None if it is hidden."
    source, found = ''.join(cell['source']), directives(''.join(cell['source']))
    if {'hide', 'default_exp'} & set(found): return None
    source = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip('\n')
    exported = bool({'export', 'exporti', 'exports'} & set(found))
    imports = source and all(re.match(r'(from|import)\s|[\s)#]|$', o) for o in source.splitlines())
    meta = {'mystnb': {'image': {'alt': 'Figure made by the code above', **css_size(cell)}}}
    if exported or imports:
        line = summary(source, exported)
        meta |= {'tags': ['hide-input']}
        meta['mystnb'] |= {'code_prompt_show': line, 'code_prompt_hide': line}
    return {**cell, 'source': source, 'metadata': meta, 'outputs': [o for o in cell['outputs'] if output(o)]}

def css_size(cell):
    "The width that a picture has on a page, in CSS pixels: as its output says, else one for each of its pixels."
    for o in cell['outputs']:
        if 'image/png' not in o.get('data', {}): continue
        said = o.get('metadata', {}).get('image/png', {}).get('width')
        return {'width': f"{said or struct.unpack('>I', base64.b64decode(o['data']['image/png'])[16:20])[0]}px"}
    return {}

def chapter(name):
    "A chapter as a page of the site."
    nb, page = json.loads((ROOT/f'nbs/{name}.ipynb').read_text(encoding='utf-8')), f'nbs/{name}.ipynb'
    cells = [code_cell(c) if c['cell_type'] == 'code' else
             {**c, 'source': widgets(relink(''.join(c['source']), page))} for c in nb['cells']]
    colab = f"https://colab.research.google.com/github/{CFG['user']}/{CFG['repo']}/blob/{PUBLISHED}"
    links = (f'\n\n<p class="chapter-links"><a href="{colab}/{DOWNLOADS}/{name}.ipynb">Open in Colab</a> '
             f'<a href="{DOWNLOADS}/{name}.ipynb" download>Download the notebook</a></p>\n\n')
    first = next(c for c in cells if c and c['cell_type'] == 'markdown')
    first['source'] = re.sub(r'(?<=\n)|$', links, first['source'], count=1) # behind the title
    nb['metadata']['language_info'] = {'name': 'python', 'pygments_lexer': 'ipython3'}
    return {**nb, 'cells': [c for c in cells if c]}

def download(name):
    "A chapter as a notebook for elsewhere: it installs the package if need be, and its links lead to the site."
    nb = json.loads((ROOT/f'nbs/{name}.ipynb').read_text(encoding='utf-8'))
    install = ('# Installs the course where it is not there yet.\nimport importlib.util\n'
               f"if importlib.util.find_spec('{CFG['lib_name']}') is None:\n    %pip install -q git+{CFG['git_url']}")
    cells = [{**c, 'source': relink(''.join(c['source']), f'nbs/{name}.ipynb', f'{SITE}/')}
             if c['cell_type'] == 'markdown' else c for c in nb['cells']]
    cell = dict(cell_type='code', execution_count=None, id='install', metadata={}, outputs=[], source=install)
    return {**nb, 'cells': [cell, *cells]}

def front_page():
    "The README's content, with the order of the pages."
    nb = json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))
    text = '\n\n'.join(''.join(c['source']) for c in nb['cells'])
    order = re.findall(r'^\| \[([^\]]+)\]\((\w+)\.ipynb\)', text, re.M) # the table of the chapters
    chapters = [f'{title} <{name}>' for title,name in order]
    def tree(caption, lines): return '\n'.join(['```{toctree}', ':hidden:', f':caption: {caption}', '', *lines, '```'])
    reference = ['The commands <commands>', 'In plain PyTorch <plain_pytorch>', "The study's tables <tables>",
                 'Recorded results <record>', 'The functions <api/index>']
    project = ['How to change something <contributing>', 'What has changed <changelog>',
               f"The repository <{CFG['git_url']}>"]
    trees = tree('Chapters', chapters), tree('Reference', reference), tree('Project', project)
    return '\n\n'.join([relink(text, 'nbs/index.ipynb'), *trees]) + '\n'

# ---- the functions

def comments(source):
    "The comment at the end of each line."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {o.start[0]: o.string.lstrip('# ') for o in tokens if o.type == tokenize.COMMENT}

def cell_text(text): return re.sub(r'(?<!\\)\|', r'\\|', text).replace('\n', ' ')
def code_text(node): return f'`{cell_text(ast.unparse(node))}`' if node else ''

def parameters(f, said):
    "Rows of a function's parameters: name, type, default, comment; last what it returns."
    a = f.args
    plain = a.posonlyargs + a.args
    defaults = [None]*(len(plain) - len(a.defaults)) + a.defaults
    rows = [*zip(plain, defaults), *([(a.vararg, None)] if a.vararg else []), *zip(a.kwonlyargs, a.kw_defaults),
            *([(a.kwarg, None)] if a.kwarg else [])]
    res = [(f'`{o.arg}`', code_text(o.annotation), code_text(d), said.get(o.end_lineno, ''))
           for o,d in rows if o.arg != 'self']
    back = said.get(f.body[0].lineno - 1, '') if f.returns else ''
    return res + ([('*returns*', code_text(f.returns), '', back)] if f.returns else [])

def table(rows):
    "A Markdown table of the rows, without the columns that are empty."
    heads = ('name', 'type', 'default', 'what it is')
    keep = [i for i in range(4) if any(r[i] for r in rows)]
    if not rows or keep == [0]: return ''
    lines = [[heads[i] for i in keep], ['--']*len(keep), *[[cell_text(r[i]) for i in keep] for r in rows]]
    return '\n'.join(f"| {' | '.join(o)} |" for o in lines)

def signature(name, f):
    "A function's head, without annotations, in lines of at most 88 characters."
    args = ast.parse(ast.unparse(f)).body[0].args
    for o in ast.walk(args):
        if isinstance(o, ast.arg): o.annotation = None
    if args.args and args.args[0].arg == 'self': args.args.pop(0)
    text = f'{name}({ast.unparse(args)})'
    if len(text) < 88: return text
    return f'{name}(\n    ' + ',\n    '.join(re.split(r', (?![^(\[{]*[)\]}])', ast.unparse(args))) + ')'

def entry(node, said, path):
    "A function or a class as a section."
    where = f"{CFG['git_url']}/blob/{CFG['branch']}/{path}#L{node.lineno}"
    init, rows, methods = node, [], []
    if isinstance(node, ast.ClassDef):
        methods = [o for o in node.body if isinstance(o, ast.FunctionDef)]
        init = next((o for o in methods if o.name == '__init__'), None)
        methods = [o for o in methods if o.name[0] != '_' and ast.get_docstring(o)]
        fields = [o for o in node.body if isinstance(o, ast.AnnAssign)]
        rows = [(f'`{o.target.id}`', code_text(o.annotation), code_text(o.value), said.get(o.lineno, ''))
                for o in fields]
    bases = ', '.join(ast.unparse(o) for o in getattr(node, 'bases', []))
    head = signature(node.name, init) if init else node.name + (f'({bases})' if bases else '')
    word = 'class ' if isinstance(node, ast.ClassDef) else ''
    parts = [f'## {node.name}', f'```python\n{word}{head}\n```', ast.get_docstring(node) or '',
             table(parameters(init, said) if init else rows),
             '\n'.join(f'- `.{signature(o.name, o)}`: {" ".join(ast.get_docstring(o).split())}' for o in methods),
             f'[source]({where})']
    return '\n\n'.join(o for o in parts if o)

def public(tree):
    "The functions and classes that a module offers."
    lists = [o.value for o in tree.body if isinstance(o, ast.Assign) and ast.unparse(o.targets[0]) == '__all__']
    names = ast.literal_eval(lists[0]) if lists else None
    nodes = [o for o in tree.body if isinstance(o, (ast.FunctionDef, ast.ClassDef))]
    return [o for o in nodes if (o.name in names if names is not None else o.name[0] != '_')]

def with_examples(doc):
    "A docstring whose examples are code."
    return '\n\n'.join(f'```pycon\n{o}\n```' if o.startswith('>>>') else o for o in doc.split('\n\n'))

def module_page(name, file):
    "The page of one module, and the sentence that its docstring begins with."
    source = file.read_text(encoding='utf-8')
    tree, said, path = ast.parse(source), comments(source), file.relative_to(ROOT)
    doc = ast.get_docstring(tree)
    made = re.search(r'File to edit: \.\./nbs/(\w+)\.ipynb', source)
    whence = f'Made in [chapter {made[1][:2]}](../{made[1]}.ipynb).' if made else ''
    first = f"`from {CFG['lib_name']}.{name} import *`"
    parts = [f'# {name}', with_examples(doc), f'{first} {whence}', *[entry(o, said, path) for o in public(tree)]]
    return '\n\n'.join(o for o in parts if o) + '\n', doc.split('\n')[0]

def api_index(docs):
    rows = [f'| [{k}]({k}.md) | {v} |' for k,v in docs.items()]
    return '\n'.join(['# The functions', '', 'Each module, from its docstrings and the comments of its parameters.', '',
                      '| module | what it holds |', '|--|--|', *rows, '',
                      '```{toctree}', ':hidden:', '', *docs, '```', ''])

# ---- the study's tables

COLUMNS = {'options': 'what the training was given, besides the other columns', 'seed': '',
           'accuracy': 'percent, last epoch', 'views': 'percent, over four more views', 'seconds': 'of one core',
           'nll': 'negative log likelihood', 'ece': 'expected calibration error', 'epochs': '', 'arch': 'network',
           'size': 'pixels', 'bs': 'images a batch', 'lr': 'largest learning rate', 'val_images': 'images validated on'}

def shown(row):
    "What the site shows of one training."
    options = {k: v for k,v in json.loads(row['options']).items() if k not in COLUMNS}
    views = json.loads(row['tta_mean'] or '[]')
    def digits(key, n, k=1): return f'{k*float(row[key]):.{n}f}' if row.get(key) else ''
    return {**{k: row.get(k) or '' for k in COLUMNS}, 'accuracy': digits('accuracy', 2, 100),
            'views': f'{100*views[4]:.2f}' if len(views) > 4 else '', 'seconds': digits('seconds', 0),
            'nll': digits('nll', 3), 'ece': digits('ece', 3), 'val_images': digits('val_images', 0),
            'options': ', '.join(k if v is True else f'{k} {v}' for k,v in options.items()) or '–'}

def html_table(file):
    "One table of the study, whose columns can be sorted."
    with file.open(newline='', encoding='utf-8') as f: rows = [shown(o) for o in csv.DictReader(f)]
    heads = ''.join(f'<th scope="col" aria-sort="none"><button type="button" title="{v or k}">{k}</button></th>'
                    for k,v in COLUMNS.items())
    body = ''.join('<tr>' + ''.join(f'<td>{html.escape(o[k])}</td>' for k in COLUMNS) + '</tr>\n' for o in rows)
    return (f'<div class="sortable" role="region" aria-label="{file.stem}" tabindex="0"><table>'
            f'<thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>')

def tables_page():
    legend = ', '.join(f'`{k}` {v}' for k,v in COLUMNS.items() if v)
    parts = ["# The study's tables",
             'Every training that stands in [the record](record.md), a row for each. The head of a column is a button: '
             'it sorts by that column, and the other way round when it is pressed again.', f'{legend}.']
    for o in TABLES:
        link = f"{CFG['git_url']}/blob/{CFG['branch']}/{o.relative_to(ROOT)}"
        parts += [f'## {o.stem}', f'[All columns, as CSV]({link})', f'```{{raw}} html\n{html_table(o)}\n```']
    return '\n\n'.join(parts) + '\n'

# ---- all of it

def write_sources(
    folder, # an empty folder
):
    "Writes the sources of all pages, their pictures, and the notebooks to download."
    for o in ('images', 'api', f'extra/{DOWNLOADS}'): (folder/o).mkdir(parents=True)
    shutil.copytree(ROOT/'docs/_static', folder/'static')
    away = shutil.ignore_patterns('*.py', '*.json', '*.txt', '__pycache__') # of which the scripts are made
    shutil.copytree(ROOT/'docs/widgets', folder/'static/widgets', ignore=away)
    for o in (ROOT/'images').glob('*.png'): copy_picture(o, folder/'images')
    (folder/'index.md').write_text(front_page(), encoding='utf-8')
    (folder/'tables.md').write_text(tables_page(), encoding='utf-8')
    for k,v in DOCS.items():
        (folder/f'{v}.md').write_text(relink((ROOT/k).read_text(encoding='utf-8'), k), encoding='utf-8')
    for o in CHAPTERS:
        (folder/f'{o}.ipynb').write_text(json.dumps(chapter(o)), encoding='utf-8')
        copy = json.dumps(download(o), ensure_ascii=False, indent=1)
        (folder/f'extra/{DOWNLOADS}/{o}.ipynb').write_text(copy, encoding='utf-8')
    docs = {}
    for k,o in MODULES.items():
        text, docs[k] = module_page(k, o)
        (folder/f'api/{k}.md').write_text(text, encoding='utf-8')
    (folder/'api/index.md').write_text(api_index(docs), encoding='utf-8')
