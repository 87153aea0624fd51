"""Plain everyday words that stand for operations and answers: some for training, others that no training ever sees."""

_TRAINING = """
apple anchor apron arrow badge bagel banjo barn basket beach beaver bench berry blanket boat bottle bread bridge
broom brush bucket butter button cabin cactus camel candle canoe carpet carrot castle cedar cellar chair cheese
cherry chimney circus cliff clover cloud cookie copper coral cotton cradle crayon cricket curtain daisy desert
dolphin donkey dragon drawer dream drum eagle elbow engine feather fern ferry flute forest fountain garden garlic
ginger glacier glove goose grape guitar hammer harbor hazel helmet honey island ivory jacket jungle kettle kitchen
ladder lamp lantern lemon lizard magnet maple marble meadow melon mirror monkey mosaic mountain napkin needle
oak olive onion orchard otter oyster paddle panda pepper piano pillow pirate planet pocket pony potato puppet
quilt rabbit radio ribbon river rocket saddle salmon scarf shovel silver sofa sparrow sponge stable statue sugar
sweater tent thunder tiger timber
"""
_HELD_OUT = """
almond bamboo beetle bonnet bugle cobalt comet compass cushion dune easel falcon flannel gazelle goblet hamper
hollow hornet igloo jasmine kayak kernel lagoon lobster lotus mitten muffin nectar noodle opal parrot pebble
pigeon pretzel raven saffron sandal satin spinach tulip tundra turnip velvet violin walnut walrus whistle willow
yogurt zebra
"""

TRAINING = tuple(_TRAINING.split())
HELD_OUT = tuple(_HELD_OUT.split())
"""No row of any training declares one of these."""
