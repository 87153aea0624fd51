"""The reasoning-gym tasks whose scorers were read and found safe to run on a student's text.

Several of the library's scorers `eval()` the answer or hand it to sympy's parser, which does the same; others
give a score of 1 to a wrong answer. A task is on this list when its scorer (version 0.1.25) does neither, takes
time at most proportional to the text, does not depend on the generator's parameters, and its answer fits one line.
"""

_BASE_SCORER = {
    # `ProceduralDataset.score_answer` unchanged: string equality; a containing answer scores below 1.
    "acre",
    "aiw",
    "arc_1d",
    "base_conversion",
    "basic_arithmetic",
    "bf",
    "binary_alternation",
    "caesar_cipher",
    "count_bits",
    "count_primes",
    "course_schedule",
    "gcd",
    "isomorphic_strings",
    "largest_island",
    "lcm",
    "leg_counting",
    "letter_counting",
    "list_functions",
    "mahjong_puzzle",
    "maze",
    "number_filtering",
    "number_sequence",
    "ransom_note",
    "rotten_oranges",
    "simple_equations",
    "simple_geometry",
    "string_manipulation",
    "string_splitting",
    "string_synthesis",
    "syllogism",
    "word_sequence_reversal",
}

_OWN_SCORER = {
    "ab",  # string equality
    "calendar_arithmetic",  # string equality, or int() of the answer
    "chain_sum",  # Decimal() equality
    "color_cube_rotation",  # string equality, case ignored
    "decimal_chain_sum",  # Decimal() equality
    "dice",  # string equality, case and line ends ignored
    "family_relationships",  # string equality, case ignored
    "fraction_simplification",  # one anchored regular expression, int(); the simplified fraction exactly
    "needle_haystack",  # string equality, case and spaces ignored
    "number_format",  # float() of the answer, within 0.01 of the number looked for
    "path_star",  # string equality, white space collapsed
    "prime_factorization",  # int() of the factors between `×`, compared as a sorted list
    "products",  # Decimal() equality
    "rectangle_count",  # int() equality
    "self_reference",  # string equality
    "sentence_reordering",  # equality of the words, case ignored
    "spell_backward",  # string equality, case ignored; a partial score of exactly 1 is lowered
    "time_intervals",  # int() of the parts of a time; partial scores stay below 1
    "zebra_puzzles",  # string equality, case and line ends ignored
}

SAFE_TASKS = frozenset(_BASE_SCORER | _OWN_SCORER)
