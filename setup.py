"Reads every field from settings.ini, so that the metadata stands in one place."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

def items(key): return cfg[key].split()

def readme():
    "README.md, whose links and pictures lead into the repository, as it was at this version."
    text,at = Path('README.md').read_text(encoding='utf-8'),f"v{cfg['version']}"
    text = re.sub(r'(!\[[^]]*\]\()(?!https?:|#)', rf"\1{cfg['git_url']}/raw/{at}/", text)
    return re.sub(r'\]\((?!https?:|#)', f"]({cfg['git_url']}/blob/{at}/", text)

tests = items('test_requirements')
setup(
    name=cfg['lib_name'], version=cfg['version'], python_requires=f">={cfg['min_python']}",
    description=cfg['description'], keywords=items('keywords'), license='Apache-2.0',
    author=cfg['author'], author_email=cfg['author_email'],
    url=cfg['git_url'], project_urls={'Changes': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"},
    long_description=readme(), long_description_content_type='text/markdown',
    classifiers=['Development Status :: 3 - Alpha', f"Intended Audience :: {cfg['audience']}",
                 f"Natural Language :: {cfg['language']}", 'Programming Language :: Python :: 3'],
    packages=[*find_packages(include=[f"{cfg['lib_path']}*"]), f"{cfg['lib_path']}.results"],
    package_dir={f"{cfg['lib_path']}.results": 'nbs/results'}, # what was measured goes along
    package_data={cfg['lib_path']: ['py.typed', 'plans/*.toml'], f"{cfg['lib_path']}.results": ['*.csv']},
    install_requires=items('requirements'),
    extras_require={'test': tests, 'dev': tests + items('dev_requirements'),
                    **{k: items(f'{k}_requirements') for k in ('bench', 'docs', 'distributed', 'tensorboard', 'onnx')}},
    entry_points={'console_scripts': items('console_scripts'), 'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
)
