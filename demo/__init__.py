"""The demonstration: what a coarse caption makes CLIP forget, and what the penalty carries over.

8,000 Fashion-MNIST images carry captions that say only *top*, *trousers*, *footwear* or *bag*. A small CLIP is trained
on them by OpenCLIP's own program, from the same initial weights without the penalty, with the paper's, and with ours.
The reference, EfficientNet-lite0 trained on ImageNet, has never seen a Fashion-MNIST label. Held-out images then show
how much of the ten fine classes, which no caption names, is left in the image features.

``python -m demo --help`` has the options; ``make demo`` runs it.
"""
