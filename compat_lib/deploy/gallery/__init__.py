"""A gallery on disk that knows which model made each entry: swap the query model, backfill when it suits.

    gallery = Gallery.create("photos", {"old-2024": 64})
    gallery.insert(ids, old_features, model="old-2024")
    gallery.declare("new-2026", 64, compatible_with="old-2024")
    gallery.search(new_queries, 10, model="new-2026")       # old entries, today
    for step in gallery.backfill("new-2026", embed, order):  # kill it whenever you like
        print(step.share)

It needs NumPy, filelock and, to search, FAISS; torch tensors are taken but torch is not imported.
"""

from compat_lib.deploy.gallery.backfill import Progress, most_found
from compat_lib.deploy.gallery.comparing import score_scale
from compat_lib.deploy.gallery.files import DamagedGallery, Model
from compat_lib.deploy.gallery.gallery import Gallery
from compat_lib.deploy.gallery.searching import Hits
from compat_lib.deploy.gallery.upkeep import Contents

__all__ = ["Contents", "DamagedGallery", "Gallery", "Hits", "Model", "Progress", "most_found", "score_scale"]
