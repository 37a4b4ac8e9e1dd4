"Renders index.ipynb as ../README.md: jupyter nbconvert --config nbs/readme_config.py nbs/index.ipynb"
import re
from nbconvert.preprocessors import Preprocessor

class LinksFromTheTop(Preprocessor):
    "README.md stands one folder higher than the notebook: its links have to start there."
    def preprocess_cell(self, cell, resources, index):
        cell.source = re.sub(r'\]\((?!\.\./|https?:|#)', '](nbs/', cell.source).replace('](../', '](')
        return cell, resources

c = get_config()
c.NbConvertApp.export_format = 'markdown'
c.NbConvertApp.output_base = 'README'
c.NbConvertApp.log_level = 'WARN'
c.FilesWriter.build_directory = '.'
c.MarkdownExporter.preprocessors = [LinksFromTheTop]
