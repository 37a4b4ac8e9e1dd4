"Builds the site from the notebooks: python docs/build.py [FOLDER], _site if none is named. Executes nothing."
import re, shutil, sys, tempfile
from pathlib import Path
from urllib.parse import unquote

from sphinx.cmd.build import main as sphinx

from pages import ROOT, BadSource, write_sources

UNUSED = ('**/*.map', '**/fontawesome.js', '**/fa-brands*', '**/fa-regular*', '_static/locales',
          '_static/*macros.html', '_sources') # what the themes bring and no page needs

def dead_links(site):
    "Links within the site that lead to no file or to no anchor."
    pages = {o: o.read_text(encoding='utf-8') for o in site.rglob('*.html')}
    ids = {o: set(re.findall(r'\sid="([^"]+)"', text)) for o,text in pages.items()}
    for page,text in pages.items():
        for link in set(re.findall(r'\s(?:href|src)="(?!https?:|data:|mailto:)([^"]*)"', text)):
            path, _, anchor = unquote(link).partition('#')
            file = (page.parent/path.split('?')[0]).resolve() if path else page
            if file.is_dir(): file = file/'index.html'
            if not file.exists() or anchor and file in ids and anchor not in ids[file]:
                yield f'{page.relative_to(site)}: {link}'

def build(
    site, # the folder to be made, anew if it is there
):
    "Makes the site; the number of things that are wrong with it."
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    (site/'.nojekyll').touch() # GitHub is to serve _static as it is
    with tempfile.TemporaryDirectory() as tmp:
        src = Path(tmp, 'src')
        write_sources(src)
        options = '-q', '-W', '--keep-going', '-n', '-c', str(ROOT/'docs'), '-d', f'{tmp}/doctrees'
        if sphinx([*options, str(src), str(site)]): return 1
    for pattern in UNUSED:
        for o in site.glob(pattern): shutil.rmtree(o) if o.is_dir() else o.unlink()
    dead = sorted(set(dead_links(site)))
    for o in dead: print(f'leads nowhere: {o}', file=sys.stderr)
    return len(dead)

if __name__ == '__main__':
    site = Path(*sys.argv[1:2] or [ROOT/'_site']).resolve()
    if len(sys.argv) > 2 or site.exists() and any(site.iterdir()) and not (site/'.nojekyll').exists():
        sys.exit('python docs/build.py [FOLDER]: at most one folder, which is new, empty, or such a site')
    try: wrong = build(site)
    except BadSource as e: sys.exit(str(e))
    sys.exit(f'{wrong} faults' if wrong else 0)
