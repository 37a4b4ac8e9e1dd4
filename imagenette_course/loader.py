"""A loader that reads whole batches from the decoded store. What a batch is made into is `Views` of chapter 11, or a
function of your own:

>>> from imagenette_course.dataset import datasets, make_sample
>>> from imagenette_course.loader import store_loaders
>>> from imagenette_course.store import PixelStore
>>> path = make_sample('few', n_train=2, n_val=1)
>>> data = datasets(path)
>>> store = PixelStore([*data.train.items, *data.valid.items], path, side=64)
>>> def views(pixels, ratio, train): return pixels.permute(0, 3, 1, 2)/255
>>> dls = store_loaders(data, path, bs=4, stats=None, store=store, views=views)
>>> x,y = dls.one_batch()
>>> x.shape, y.shape
(torch.Size([4, 3, 64, 64]), torch.Size([4]))
"""

__all__ = ['Normalized', 'CachedDL', 'store_loaders']

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from .store import PixelStore, squash
from fastai.vision.all import *

class Normalized(Normalize):
    "A `Normalize` for batches that the loader has normalized: it decodes, and keeps the statistics."
    def encodes(self, x:TensorImage): return x

def _labels(dataset):
    "All labels of a dataset, int64; None when it has none."
    if len(dataset.tls) == 1: return None
    if not hasattr(dataset, '_labels'): dataset._labels = torch.tensor([int(o) for o in dataset.tls[1]])
    return dataset._labels

def _read_ahead(dl, batches):
    "Indices, squares and ratios of each batch, on the loader's device; a thread reads the next one meanwhile."
    store, device = dl.store, torch.device(ifnone(dl.device, 'cpu'))
    rows = store.rows(dl.dataset.items)
    if rows is not None and store.fits(device):
        there = store.on(device)
        for idxs in batches:
            at = rows[idxs].to(device, non_blocking=True)
            yield idxs, *(o.index_select(0, at) for o in there)
        return
    def read(idxs):
        if rows is None: # images that are not in the store
            images = [dl.dataset.tls[0][i] for i in idxs]
            parts = np.stack([squash(o, store.side) for o in images]), [o.width/o.height for o in images]
        else: parts = (o.index_select(0, rows[idxs]) for o in (store.pixels, store.ratio))
        return [o.pin_memory() if device.type == 'cuda' else o for o in map(torch.as_tensor, parts)]
    with ThreadPoolExecutor(1) as pool:
        todo = ((idxs, pool.submit(read, idxs)) for idxs in batches)
        for (idxs,now),_ in pairwise(chain(todo, [None])): # the next one is submitted already
            yield idxs, *(o.to(device, non_blocking=True) for o in now.result())

class CachedDL(TfmdDL):
    "Reads whole batches from a `PixelStore`; images that are not in it are decoded on the spot."
    def __init__(self,
        dataset, # fastai's `Datasets`, or a part of one
        store:PixelStore=None, # decoded images
        views=None, # what is made of them: a function of pixels, ratio and train, such as `Views`
        bs:int=64, # images a batch
        **kwargs # for `TfmdDL`
    ):
        kwargs['num_workers'] = 0
        super().__init__(dataset, bs=bs, **kwargs)
        self.store, self.views = store, views
    def new(self, dataset=None, cls=None, **kwargs):
        "A loader like this one, of another dataset or with other arguments."
        return super().new(dataset, cls, **merge(dict(store=self.store, views=self.views), kwargs))
    def create_batches(self, samps):
        "Batches of images, and labels where there are any."
        train, labels = getattr(self.dataset, 'split_idx', 1) == 0, _labels(self.dataset)
        for idxs,pixels,ratio in _read_ahead(self, map(list, chunked(samps, self.bs, self.drop_last))):
            x = self.views(pixels, ratio, train)
            yield (x,) if labels is None else (x, TensorCategory(labels[idxs].to(x.device, non_blocking=True)))

def store_loaders(
    data:Datasets, # images and labels, as from `datasets`
    path:Path, # folder of the dataset
    bs:int, # images a batch
    stats:tuple, # (mean, std) that the views are normalized by, None: they are not
    store:PixelStore, # decoded images
    views, # what is made of them, as for `CachedDL`
) -> DataLoaders: # of `CachedDL`, the training images shuffled
    "Batches of `datasets`, from the store."
    tfms,device = [] if stats is None else [Normalized.from_stats(*stats)],default_device()
    make = partial(CachedDL, store=store, views=views, bs=bs, device=device, after_item=ToTensor, after_batch=tfms)
    dls = DataLoaders(make(data.train, shuffle=True, drop_last=True), make(data.valid), path=Path(path), device=device)
    dls.views = views # for images that grow
    return dls
