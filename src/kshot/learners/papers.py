"""The papers that learners come from: each is written once, here."""

from functools import partial

from kshot.paper import Paper

__all__ = [
    "ANTONIOU_2019",
    "BERTINETTO_2019",
    "CHEN_2019",
    "CHEN_2020",
    "DENG_2019",
    "FINN_2017",
    "FORT_2017",
    "GOLUB_1979",
    "GRAVES_2014",
    "HADSELL_2006",
    "HOCHREITER_2001",
    "KOCH_2015",
    "LIU_2017",
    "LI_2017",
    "MISHRA_2018",
    "MUNKHDALAI_2017",
    "NICHOL_2018",
    "QI_2018",
    "RAGHU_2020",
    "RAJESWARAN_2019",
    "RAVI_2017",
    "REN_2018",
    "SANTORO_2016",
    "SCHROFF_2015",
    "SNELL_2017",
    "SUNG_2018",
    "VINYALS_2016",
    "WANG_2018",
    "WANG_2019",
]

_ICML = partial(Paper, venue="ICML", booktitle="International Conference on Machine Learning")
_ICLR = partial(
    Paper, venue="ICLR", booktitle="International Conference on Learning Representations"
)
_NEURIPS = partial(
    Paper, venue="NeurIPS", booktitle="Advances in Neural Information Processing Systems"
)
_CVPR = partial(
    Paper,
    venue="CVPR",
    booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
)
_IEEE_CVPR = partial(
    Paper, venue="CVPR", booktitle="IEEE Conference on Computer Vision and Pattern Recognition"
)
_PREPRINT = partial(Paper, venue="")

ANTONIOU_2019 = _ICLR(
    authors=("Antreas Antoniou", "Harrison Edwards", "Amos Storkey"),
    title="How to train your MAML",
    year=2019,
    url="https://arxiv.org/abs/1810.09502",
)
"""How to train your MAML."""
BERTINETTO_2019 = _ICLR(
    authors=("Luca Bertinetto", "João F. Henriques", "Philip H. S. Torr", "Andrea Vedaldi"),
    title="Meta-learning with differentiable closed-form solvers",
    year=2019,
    url="https://arxiv.org/abs/1805.08136",
)
"""Meta-learning with differentiable closed-form solvers."""
CHEN_2019 = _ICLR(
    authors=("Wei-Yu Chen", "Yen-Cheng Liu", "Zsolt Kira", "Yu-Chiang Frank Wang", "Jia-Bin Huang"),
    title="A Closer Look at Few-shot Classification",
    year=2019,
    url="https://arxiv.org/abs/1904.04232",
)
"""A Closer Look at Few-shot Classification."""
CHEN_2020 = _ICML(
    authors=("Ting Chen", "Simon Kornblith", "Mohammad Norouzi", "Geoffrey Hinton"),
    title="A Simple Framework for Contrastive Learning of Visual Representations",
    year=2020,
    url="https://arxiv.org/abs/2002.05709",
)
"""A Simple Framework for Contrastive Learning of Visual Representations."""
DENG_2019 = _CVPR(
    authors=("Jiankang Deng", "Jia Guo", "Niannan Xue", "Stefanos Zafeiriou"),
    title="ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
    year=2019,
    url="https://arxiv.org/abs/1801.07698",
)
"""ArcFace."""
FINN_2017 = _ICML(
    authors=("Chelsea Finn", "Pieter Abbeel", "Sergey Levine"),
    title="Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
    year=2017,
    url="https://arxiv.org/abs/1703.03400",
)
"""Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks."""
FORT_2017 = _PREPRINT(
    authors=("Stanislav Fort",),
    title="Gaussian Prototypical Networks for Few-Shot Learning on Omniglot",
    year=2017,
    url="https://arxiv.org/abs/1708.02735",
)
"""Gaussian Prototypical Networks for Few-Shot Learning on Omniglot."""
GOLUB_1979 = Paper(
    authors=("Gene H. Golub", "Michael Heath", "Grace Wahba"),
    title="Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter",
    year=1979,
    url="https://doi.org/10.1080/00401706.1979.10489751",
    venue="Technometrics",
    booktitle="Technometrics",
    journal=True,
)
"""Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter."""
GRAVES_2014 = _PREPRINT(
    authors=("Alex Graves", "Greg Wayne", "Ivo Danihelka"),
    title="Neural Turing Machines",
    year=2014,
    url="https://arxiv.org/abs/1410.5401",
)
"""Neural Turing Machines."""
HADSELL_2006 = Paper(
    authors=("Raia Hadsell", "Sumit Chopra", "Yann LeCun"),
    title="Dimensionality Reduction by Learning an Invariant Mapping",
    year=2006,
    url="https://doi.org/10.1109/CVPR.2006.100",
    venue="CVPR",
    booktitle="IEEE Computer Society Conference on Computer Vision and Pattern Recognition",
)
"""Dimensionality Reduction by Learning an Invariant Mapping."""
HOCHREITER_2001 = Paper(
    authors=("Sepp Hochreiter", "A. Steven Younger", "Peter R. Conwell"),
    title="Learning to Learn Using Gradient Descent",
    year=2001,
    url="https://doi.org/10.1007/3-540-44668-0_13",
    venue="ICANN",
    booktitle="International Conference on Artificial Neural Networks",
)
"""Learning to Learn Using Gradient Descent."""
KOCH_2015 = Paper(
    authors=("Gregory Koch", "Richard Zemel", "Ruslan Salakhutdinov"),
    title="Siamese Neural Networks for One-shot Image Recognition",
    year=2015,
    url="https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf",
    venue="ICML Deep Learning Workshop",
    booktitle="ICML Deep Learning Workshop",
)
"""Siamese Neural Networks for One-shot Image Recognition."""
LIU_2017 = _IEEE_CVPR(
    authors=("Weiyang Liu", "Yandong Wen", "Zhiding Yu", "Ming Li", "Bhiksha Raj", "Le Song"),
    title="SphereFace: Deep Hypersphere Embedding for Face Recognition",
    year=2017,
    url="https://arxiv.org/abs/1704.08063",
)
"""SphereFace."""
LI_2017 = _PREPRINT(
    authors=("Zhenguo Li", "Fengwei Zhou", "Fei Chen", "Hang Li"),
    title="Meta-SGD: Learning to Learn Quickly for Few-Shot Learning",
    year=2017,
    url="https://arxiv.org/abs/1707.09835",
)
"""Meta-SGD."""
MISHRA_2018 = _ICLR(
    authors=("Nikhil Mishra", "Mostafa Rohaninejad", "Xi Chen", "Pieter Abbeel"),
    title="A Simple Neural Attentive Meta-Learner",
    year=2018,
    url="https://arxiv.org/abs/1707.03141",
)
"""A Simple Neural Attentive Meta-Learner."""
MUNKHDALAI_2017 = _ICML(
    authors=("Tsendsuren Munkhdalai", "Hong Yu"),
    title="Meta Networks",
    year=2017,
    url="https://arxiv.org/abs/1703.00837",
)
"""Meta Networks."""
NICHOL_2018 = _PREPRINT(
    authors=("Alex Nichol", "Joshua Achiam", "John Schulman"),
    title="On First-Order Meta-Learning Algorithms",
    year=2018,
    url="https://arxiv.org/abs/1803.02999",
)
"""On First-Order Meta-Learning Algorithms."""
QI_2018 = _CVPR(
    authors=("Hang Qi", "Matthew Brown", "David G. Lowe"),
    title="Low-Shot Learning with Imprinted Weights",
    year=2018,
    url="https://arxiv.org/abs/1712.07136",
)
"""Low-Shot Learning with Imprinted Weights."""
RAGHU_2020 = _ICLR(
    authors=("Aniruddh Raghu", "Maithra Raghu", "Samy Bengio", "Oriol Vinyals"),
    title="Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML",
    year=2020,
    url="https://arxiv.org/abs/1909.09157",
)
"""Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML."""
RAJESWARAN_2019 = _NEURIPS(
    authors=("Aravind Rajeswaran", "Chelsea Finn", "Sham M. Kakade", "Sergey Levine"),
    title="Meta-Learning with Implicit Gradients",
    year=2019,
    url="https://arxiv.org/abs/1909.04630",
)
"""Meta-Learning with Implicit Gradients."""
RAVI_2017 = _ICLR(
    authors=("Sachin Ravi", "Hugo Larochelle"),
    title="Optimization as a Model for Few-Shot Learning",
    year=2017,
    url="https://openreview.net/forum?id=rJY0-Kcll",
)
"""Optimization as a Model for Few-Shot Learning."""
REN_2018 = _ICLR(
    authors=(
        "Mengye Ren",
        "Eleni Triantafillou",
        "Sachin Ravi",
        "Jake Snell",
        "Kevin Swersky",
        "Joshua B. Tenenbaum",
        "Hugo Larochelle",
        "Richard S. Zemel",
    ),
    title="Meta-Learning for Semi-Supervised Few-Shot Classification",
    year=2018,
    url="https://arxiv.org/abs/1803.00676",
)
"""Meta-Learning for Semi-Supervised Few-Shot Classification."""
SANTORO_2016 = _ICML(
    authors=(
        "Adam Santoro",
        "Sergey Bartunov",
        "Matthew Botvinick",
        "Daan Wierstra",
        "Timothy Lillicrap",
    ),
    title="Meta-Learning with Memory-Augmented Neural Networks",
    year=2016,
    url="https://proceedings.mlr.press/v48/santoro16.html",
)
"""Meta-Learning with Memory-Augmented Neural Networks."""
SCHROFF_2015 = _IEEE_CVPR(
    authors=("Florian Schroff", "Dmitry Kalenichenko", "James Philbin"),
    title="FaceNet: A Unified Embedding for Face Recognition and Clustering",
    year=2015,
    url="https://arxiv.org/abs/1503.03832",
)
"""FaceNet."""
SNELL_2017 = _NEURIPS(
    authors=("Jake Snell", "Kevin Swersky", "Richard Zemel"),
    title="Prototypical Networks for Few-shot Learning",
    year=2017,
    url="https://arxiv.org/abs/1703.05175",
)
"""Prototypical Networks for Few-shot Learning."""
SUNG_2018 = _CVPR(
    authors=(
        "Flood Sung",
        "Yongxin Yang",
        "Li Zhang",
        "Tao Xiang",
        "Philip H. S. Torr",
        "Timothy M. Hospedales",
    ),
    title="Learning to Compare: Relation Network for Few-Shot Learning",
    year=2018,
    url="https://arxiv.org/abs/1711.06025",
)
"""Learning to Compare."""
VINYALS_2016 = _NEURIPS(
    authors=(
        "Oriol Vinyals",
        "Charles Blundell",
        "Timothy Lillicrap",
        "Koray Kavukcuoglu",
        "Daan Wierstra",
    ),
    title="Matching Networks for One Shot Learning",
    year=2016,
    url="https://arxiv.org/abs/1606.04080",
)
"""Matching Networks for One Shot Learning."""
WANG_2018 = _CVPR(
    authors=(
        "Hao Wang",
        "Yitong Wang",
        "Zheng Zhou",
        "Xing Ji",
        "Dihong Gong",
        "Jingchao Zhou",
        "Zhifeng Li",
        "Wei Liu",
    ),
    title="CosFace: Large Margin Cosine Loss for Deep Face Recognition",
    year=2018,
    url="https://arxiv.org/abs/1801.09414",
)
"""CosFace."""
WANG_2019 = _PREPRINT(
    authors=("Yan Wang", "Wei-Lun Chao", "Kilian Q. Weinberger", "Laurens van der Maaten"),
    title="SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning",
    year=2019,
    url="https://arxiv.org/abs/1911.04623",
)
"""SimpleShot."""
