"Reads every field from settings.ini, so that the metadata stands in one place."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

def items(key): return cfg[key].split()

tests = items('test_requirements')
setup(
    name=cfg['lib_name'], version=cfg['version'], python_requires=f">={cfg['min_python']}",
    description=cfg['description'], keywords=items('keywords'), license='Apache-2.0',
    author=cfg['author'], author_email=cfg['author_email'],
    long_description=Path('README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=['Development Status :: 3 - Alpha', f"Intended Audience :: {cfg['audience']}",
                 f"Natural Language :: {cfg['language']}", 'Programming Language :: Python :: 3'],
    packages=[*find_packages(include=[f"{cfg['lib_path']}*"]), f"{cfg['lib_path']}.results"],
    package_dir={f"{cfg['lib_path']}.results": 'nbs/results'}, # what was measured goes along
    package_data={cfg['lib_path']: ['plans/*.toml'], f"{cfg['lib_path']}.results": ['*.csv']},
    install_requires=items('requirements'),
    extras_require={'test': tests, 'dev': tests + items('dev_requirements'),
                    **{k: items(f'{k}_requirements') for k in ('bench', 'docs', 'distributed', 'tensorboard')}},
    entry_points={'console_scripts': items('console_scripts'), 'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
)
