"""The published data that xmr knows how to get and read: where it is, what may be done with it, how to train from it.

Addresses and checksums are those that the publishers, or libraries that check against them, print. Where the terms ask
for a form or a letter, there is no address: `ask` says whom to ask.
"""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

FOLDER = "FOLDER"  # in `train` and `layout`: where the data was fetched to


@dataclass(frozen=True)
class FileToFetch:
    """One file to download, and to unpack when it is an archive."""

    url: str
    size_bytes: int | None = None  # None: as the server says
    checksum: str | None = None  # "sha256:…" or "md5:…" as published; None: nobody published one
    saved_as: str = ""  # empty: as in the URL

    @property
    def name(self) -> str:
        """Its name in the folder."""
        return self.saved_as or unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])


@dataclass(frozen=True)
class DatasetToFetch:
    """A published dataset."""

    name: str
    what: str
    use: str  # what xmr makes of it
    paper: str
    home: str
    licence: str
    size_gb: float | None  # to download, 1e9 bytes; None: not published
    train: str  # options of `xmr train`
    layout: str  # what stands in FOLDER once everything is unpacked
    files: tuple[FileToFetch, ...] = ()
    ask: str = ""  # how to get what no address leads to


_FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
_COCO = "http://images.cocodataset.org"
_GENOME = "https://homes.cs.washington.edu/~ranjay/visualgenome"
_GENOME_IMAGES = "https://cs.stanford.edu/people/rak248/VG_100K_2"

_DATASETS = (
    DatasetToFetch(
        name="cub",
        what="Caltech-UCSD Birds-200-2011: 11,788 photos of birds of 200 species",
        use="the images of image-text pairs by species; the sentences are cub-captions",
        paper="Wah, Branson, Welinder, Perona, Belongie 2011, Caltech technical report CNS-TR-2011-001",
        home="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        licence="none stated; the photos stay their owners', so use them for research",
        size_gb=1.15,
        train="--data cub:FOLDER/CUB_200_2011",
        layout="FOLDER/CUB_200_2011/images; the sentences go beside it, see cub-captions",
        files=(
            FileToFetch(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                1_150_585_339,
                "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            ),
        ),
    ),
    DatasetToFetch(
        name="cub-captions",
        what="ten sentences for each photo of cub, as Torch files",
        use="the text of cub",
        paper="Reed, Akata, Lee, Schiele 2016, Learning Deep Representations of Fine-Grained Visual Descriptions, CVPR",
        home="https://github.com/reedscot/icml2016",
        licence="none stated for the sentences",
        size_gb=0.46,
        train="--data cub:FOLDER/CUB_200_2011",
        layout="FOLDER/CUB_200_2011/cub_icml beside images/; there too train.txt, val.txt, test.txt: number, class",
        ask="follow the link `birds` of its README with a browser; it leads to a file of Google Drive",
    ),
    DatasetToFetch(
        name="flickr8k",
        what="8,091 photos of people and animals, five written captions each",
        use="image-text pairs",
        paper="Hodosh, Young, Hockenmaier 2013, Framing Image Description as a Ranking Task, JAIR 47",
        home="https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k",
        licence="photos by the terms of use of Flickr, for research and education, not to be passed on",
        size_gb=1.12,
        train="--data flickr8k:FOLDER",
        layout="FOLDER/Flicker8k_Dataset, FOLDER/Flickr8k.token.txt and the lists of the splits",
        files=(
            FileToFetch(f"{_FLICKR8K}/Flickr8k_text.zip", None, "md5:bf6c1abcb8e4a833b7f922104de18627"),
            FileToFetch(f"{_FLICKR8K}/Flickr8k_Dataset.zip", None, "md5:f18a1e2920de5bd84dae7cf08ec78978"),
        ),
    ),
    DatasetToFetch(
        name="flickr8k-spoken",
        what="Flickr 8k Audio Caption Corpus: 40,000 captions of flickr8k read aloud by 183 people, 16 kHz",
        use="image-speech-text pairs",
        paper="Harwath, Glass 2015, Deep Multimodal Semantic Embeddings for Speech and Images, ASRU",
        home="https://groups.csail.mit.edu/sls/downloads/flickraudio/",
        licence="Creative Commons Attribution-ShareAlike",
        size_gb=4.2,
        train="--data flickr8k-spoken:FOLDER",
        layout="FOLDER/flickr_audio; fetch flickr8k into the same FOLDER for the photos, the text and the splits",
        files=(
            FileToFetch(
                "https://groups.csail.mit.edu/sls/downloads/flickraudio/downloads/flickr_audio.tar.gz",
                None,
                "md5:9d078f1f150c26e864aa64d1d733779a",
            ),
        ),
    ),
    DatasetToFetch(
        name="places-audio",
        what="Places Audio Captions: 400,000 spoken descriptions of photos of Places205",
        use="image-speech pairs",
        paper="Harwath, Torralba, Glass 2016, Unsupervised Learning of Spoken Language with Visual Context, NIPS",
        home="https://groups.csail.mit.edu/sls/downloads/placesaudio/",
        licence="photos after a form, for research; the recordings as their page says",
        size_gb=85,
        train="--data places-audio:FOLDER",
        layout="FOLDER/metadata with the lists, the wavs and the photos under the base paths that the lists name",
        ask="the recordings on its page; the photos of Places205 by the form of http://places.csail.mit.edu/downloadData.html",
    ),
    DatasetToFetch(
        name="karpathy",
        what="the splits and captions of Flickr8k, Flickr30k and COCO that most papers use, as JSON",
        use="image-text pairs, once the photos of flickr30k or coco are there",
        paper="Karpathy, Fei-Fei 2015, Deep Visual-Semantic Alignments for Generating Image Descriptions, CVPR",
        home="https://cs.stanford.edu/people/karpathy/deepimagesent/",
        licence="none stated for the splits; the captions as their datasets say",
        size_gb=0.037,
        train="--data karpathy:FOLDER/dataset_flickr30k.json",
        layout="FOLDER/dataset_flickr8k.json, dataset_flickr30k.json, dataset_coco.json; the photos beside them",
        files=(
            FileToFetch(
                "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
                36_745_453,
                "sha256:4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
            ),
        ),
    ),
    DatasetToFetch(
        name="flickr30k",
        what="31,783 photos of everyday activities, five written captions each",
        use="image-text pairs; the splits are karpathy",
        paper="Young, Lai, Hodosh, Hockenmaier 2014, From Image Descriptions to Visual Denotations, TACL 2",
        home="https://shannon.cs.illinois.edu/DenotationGraph/",
        licence="photos by the terms of use of Flickr, for non-commercial research and education only",
        size_gb=4.4,
        train="--data karpathy:FOLDER/dataset_flickr30k.json",
        layout="unpack flickr30k-images.tar.gz into FOLDER; fetch karpathy into the same FOLDER",
        ask="fill in the form https://forms.illinois.edu/sec/229675; the address comes by mail",
    ),
    DatasetToFetch(
        name="coco",
        what="COCO 2014: 123,287 photos of everyday scenes, five written captions each",
        use="image-text pairs; fetch karpathy into the same folder for the splits that most papers use",
        paper="Lin et al. 2014, Microsoft COCO: Common Objects in Context, ECCV; Chen et al. 2015, arXiv:1504.00325",
        home="https://cocodataset.org/#download",
        licence="annotations CC BY 4.0; photos by the terms of use of Flickr",
        size_gb=20.4,
        train="--data coco:FOLDER",
        layout="FOLDER/annotations, FOLDER/train2014, FOLDER/val2014",
        files=(
            FileToFetch(
                f"{_COCO}/annotations/annotations_trainval2014.zip",
                252_872_794,
                "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            ),
            FileToFetch(
                f"{_COCO}/zips/val2014.zip",
                6_645_013_297,
                "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            ),
            FileToFetch(
                f"{_COCO}/zips/train2014.zip",
                13_510_573_713,
                "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            ),
        ),
    ),
    DatasetToFetch(
        name="visual-genome",
        what="Visual Genome: 108,077 photos and 5.4 million descriptions of their regions",
        use="image-text pairs with the box that each description is about",
        paper="Krishna et al. 2017, Visual Genome: Connecting Language and Vision, IJCV 123",
        home=f"{_GENOME}/api.html",
        licence="CC BY 4.0",
        size_gb=15.3,
        train="--data visual-genome:FOLDER",
        layout="FOLDER/region_descriptions.json, FOLDER/image_data.json, FOLDER/VG_100K, FOLDER/VG_100K_2",
        files=(
            FileToFetch(f"{_GENOME}/data/dataset/image_data.json.zip"),
            FileToFetch(f"{_GENOME}/data/dataset/region_descriptions.json.zip"),
            FileToFetch(
                f"{_GENOME_IMAGES}/images2.zip",
                5_471_658_058,
                "sha256:99da1a0ddf87011319ff3b05cf9176ffee2731cc3c52951162d9ef0d68e3cfb5",
            ),
            FileToFetch(f"{_GENOME_IMAGES}/images.zip", 9_731_705_982),
        ),
    ),
    DatasetToFetch(
        name="cuhk-pedes",
        what="40,206 photos of 13,003 pedestrians, two written descriptions each",
        use="image-text pairs by person",
        paper="Li, Xiao, Li, Zhou, Yue, Wang 2017, Person Search with Natural Language Description, CVPR",
        home="https://github.com/ShuangLI59/Person-Search-with-Natural-Language-Description",
        licence="academic use only, after a letter from a university address",
        size_gb=None,
        train="--data cuhk-pedes:FOLDER",
        layout="FOLDER/reid_raw.json and FOLDER/imgs",
        ask="write to the address in its README from a university account",
    ),
    DatasetToFetch(
        name="esc-50",
        what="ESC-50: 2,000 recordings of 50 kinds of sound, five seconds each",
        use="image-sound pairs by class, together with photos of the same classes",
        paper="Piczak 2015, ESC: Dataset for Environmental Sound Classification, ACM Multimedia",
        home="https://github.com/karolpiczak/ESC-50",
        licence="CC BY-NC",
        size_gb=0.65,
        train="--data class-pairs:FOLDER",
        layout="FOLDER/ESC-50-master/audio and meta/esc50.csv; put photos into FOLDER/images/<class>/",
        files=(FileToFetch("https://github.com/karolpiczak/ESC-50/archive/master.zip", saved_as="ESC-50-master.zip"),),
    ),
    DatasetToFetch(
        name="word2vec",
        what="vectors of 3 million English words and phrases, 300 numbers each, trained on Google News",
        use="word vectors of a text encoder",
        paper="Mikolov, Sutskever, Chen, Corrado, Dean 2013, Distributed Representations of Words and Phrases, NIPS",
        home="https://code.google.com/archive/p/word2vec/",
        licence="none stated for the vectors",
        size_gb=1.74,
        train="--set words.file=FOLDER/GoogleNews-vectors-negative300.bin",
        layout="FOLDER/GoogleNews-vectors-negative300.bin, 3.6 GB",
        files=(
            FileToFetch(
                "https://github.com/piskvorky/gensim-data/releases/download/"
                "word2vec-google-news-300/word2vec-google-news-300.gz",
                None,
                "md5:a5e5354d40acb95f9ec66d5977d140ef",
                saved_as="GoogleNews-vectors-negative300.bin.gz",
            ),
        ),
    ),
)
DATASETS_TO_FETCH: dict[str, DatasetToFetch] = {dataset.name: dataset for dataset in _DATASETS}
