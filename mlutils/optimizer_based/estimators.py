"""Three ways to the gradient of the meta-loss by a rule's weights: a tape, and two without one.

Each goes along a trajectory segment by segment.  ``begin`` says what is carried from one segment
to the next, ``segment`` returns a segment's part of the meta-loss, its part of the gradient, and
what is carried on.
"""

import keras
import tensorflow as tf

from mlutils.vectorize import map_tasks


class Tape:
    """Differentiate each segment (:eq:`eq-unrolled-gradient`)."""

    def __init__(self, trainer):
        self.trainer = trainer

    def begin(self, theta, state):
        return theta, state

    def segment(self, carried, problem, start, seed):
        variables = self.trainer.rule.trainable_variables
        theta, state = carried
        with tf.GradientTape() as tape:
            loss, theta, state = self.trainer.segment_loss(theta, problem, state, start)
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        return loss, gradients, (theta, state)


class EvolutionStrategy:
    """Compare pairs of rules whose weights were moved in opposite directions (:eq:`eq-es`).

    The run goes on from where the weights as they are have got to: with several segments the
    estimate knows no more than a tape does of what a segment means for later ones.

    Args:
        trainer: a ``RuleTrainer``.
        sigma: the standard deviation of the moves.
        pairs: how many.
    """

    def __init__(self, trainer, sigma, pairs):
        self.trainer, self.sigma, self.pairs = trainer, sigma, pairs

    def begin(self, theta, state):
        return theta, state

    def segment(self, carried, problem, start, seed):
        moves = self.moves(seed, start)
        losses = map_tasks(lambda move: self.moved(move, *carried, problem, start)[0], moves)
        loss, theta, state = self.trainer.segment_loss(carried[0], problem, carried[1], start)
        return loss, self.slopes(losses, moves), (theta, state)

    def moves(self, seed, start):
        """Like the rule's weights, each with a leading axis: all pairs' moves, then the opposite
        ones."""
        seed = tf.random.experimental.stateless_fold_in(seed, start)
        found = []
        for number, variable in enumerate(self.trainer.rule.trainable_variables):
            own = tf.random.experimental.stateless_fold_in(seed, number)
            shape = (self.pairs, *variable.shape)
            move = self.sigma * tf.random.stateless_normal(shape, own, dtype=variable.dtype)
            found.append(tf.concat([move, -move], axis=0))
        return found

    def moved(self, move, theta, state, problem, start):
        """The trainer's ``segment_loss`` with the rule's weights moved."""
        pairs = zip(self.trainer.rule.trainable_variables, move, strict=True)
        with keras.StatelessScope(state_mapping=[(v, v.value + by) for v, by in pairs]):
            return self.trainer.segment_loss(theta, problem, state, start)

    def slopes(self, losses, moves):
        """The mean of (L+ - L-) move / (2 sigma²) over the pairs."""
        scale = 2 * self.pairs * self.sigma**2
        return [tf.tensordot(losses, move, 1) / scale for move in moves]


class PersistentEvolutionStrategy(EvolutionStrategy):
    """Pairs that live on from segment to segment, and are credited with all their moves so far
    (:eq:`eq-pes`; Vicol, Metz & Sohl-Dickstein, ICML 2021).

    The loss that is logged is the mean over the moved rules.
    """

    def begin(self, theta, state):
        """Each moved rule has a theta and a state of its own, and the sum of its moves."""
        copies = lambda x: tf.repeat(tf.convert_to_tensor(x)[None], 2 * self.pairs, axis=0)  # noqa: E731
        theta, state = tf.nest.map_structure(copies, (theta, state))
        weights = self.trainer.rule.trainable_variables
        return theta, state, [tf.zeros((2 * self.pairs, *v.shape), v.dtype) for v in weights]

    def segment(self, carried, problem, start, seed):
        theta, state, sums = carried
        moves = self.moves(seed, start)
        sums = [total + move for total, move in zip(sums, moves, strict=True)]
        losses, theta, state = map_tasks(
            lambda one: self.moved(*one, problem, start), (moves, theta, state)
        )
        return tf.reduce_mean(losses), self.slopes(losses, sums), (theta, state, sums)
