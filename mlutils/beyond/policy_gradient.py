"""A recurrent learner that chooses its own examples, and its training by policy gradient."""

import keras
import tensorflow as tf

from mlutils.beyond.bandits import seeds
from mlutils.door.numbers import check_count, check_positive, check_rate, check_seed


@keras.saving.register_keras_serializable("mlutils")
class BanditLearner(keras.Model):
    """A GRU whose state is what it has learned of the task (RL²: Duan et al., 2016,
    arXiv:1611.02779; Wang et al., 2016, arXiv:1611.05763).

    Before each pull the state gives the arms' probabilities (:eq:`eq-bandit-learner`) and an
    estimate of the rewards to come; after it, arm and reward move the state.  No weight changes.

    Args:
        arms: how many.
        units: numbers in the state.

    Example:
        >>> family = mlutils.BernoulliArms(arms=2)
        >>> learner = mlutils.BanditLearner(arms=2)
        >>> arms, rewards = learner.play(family, family.draw(100, seed=0), pulls=20, seed=1)
        >>> tuple(arms.shape)  # (tasks, pulls); rewards alike
        (100, 20)
        >>> logits, to_come = learner((arms, rewards))
        >>> tuple(logits.shape), tuple(to_come.shape)  # before each pull
        ((100, 20, 2), (100, 20))
    """

    def __init__(self, arms, units=32, **kwargs):
        super().__init__(**kwargs)
        self.arms, self.units = check_count("arms", arms, 2), check_count("units", units)
        self.cell = keras.layers.GRUCell(self.units)
        self.policy, self.value = keras.layers.Dense(self.arms), keras.layers.Dense(1)
        self.cell.build((None, self.arms + 1))
        self.policy.build((None, self.units))
        self.value.build((None, self.units))
        self.built = True

    def start(self, tasks):
        """The state before the first pull, ``(tasks, units)``."""
        return tf.zeros((tasks, self.units), self.compute_dtype)

    def advance(self, state, arm, reward):
        """The state after a pull of ``arm`` ``(tasks,)`` that paid ``reward`` ``(tasks,)``."""
        pulled = tf.one_hot(arm, self.arms, dtype=state.dtype)
        reward = tf.cast(reward, state.dtype)[:, None]
        return self.cell(tf.concat([pulled, reward], axis=1), state)[0]

    def call(self, history):
        """Along given runs: what it would do before each pull.

        Args:
            history: ``arms``, integers, and ``rewards``, both ``(tasks, pulls)``.

        Returns:
            The arms' logits ``(tasks, pulls, arms)`` and the estimates of the rewards to come
            ``(tasks, pulls)``; at each pull they know the pulls before it.
        """
        arms, rewards = history
        state, states = self.start(tf.shape(arms)[0]), []
        for t in range(arms.shape[1]):
            states.append(state)
            state = self.advance(state, arms[:, t], rewards[:, t])
        states = tf.stack(states, axis=1)
        return self.policy(states), self.value(states)[..., 0]

    def play(self, family, tasks, pulls, seed, pull=None):
        """Runs in which the learner chooses, each arm with the probability that it gives it.

        Args:
            family: ``BernoulliArms`` or ``InformativeArm``.
            tasks: as ``family.draw`` gives them.
            pulls: how many.
            seed: an integer; the same seed gives the same runs.
            pull: what to pull instead of ``family.pull``, a function of the same arguments.

        Returns:
            ``arms``, int32, and ``rewards``, both ``(tasks, pulls)``.
        """
        pulls = check_count("pulls", pulls)
        if self.arms != family.arms:
            raise ValueError(f"The learner has {self.arms} arms, and the family {family.arms}.")
        pull, state = pull or family.pull, self.start(tf.shape(tasks)[0])
        arms, rewards = [], []
        for t in range(pulls):
            choice, luck = seeds(seed, 2 * t + 1), seeds(seed, 2 * t + 2)
            uniform = tf.random.stateless_uniform((tf.shape(tasks)[0], 1), choice)
            chances = tf.nn.softmax(tf.cast(self.policy(state), tf.float32))
            reached = tf.cumsum(chances, axis=1)[:, :-1]
            arm = tf.reduce_sum(tf.cast(uniform > reached, tf.int32), axis=1)
            arms.append(arm)
            rewards.append(pull(tasks, arm, luck))
            state = self.advance(state, arm, rewards[-1])
        return tf.stack(arms, axis=1), tf.stack(rewards, axis=1)

    def get_config(self):
        return {**super().get_config(), "arms": self.arms, "units": self.units}


def rewards_to_go(rewards):
    """The sum of each pull's reward and all later ones, ``(tasks, pulls)``."""
    return tf.cumsum(rewards, axis=1, reverse=True)


def policy_gradient_loss(log_chances, returns, baselines):
    """What has minus the policy gradient as its gradient (:eq:`eq-policy-gradient`).

    Args:
        log_chances: the logarithm of the probability of each arm that was pulled,
            ``(tasks, pulls)``.
        returns: what is credited to each pull, ``rewards_to_go(rewards)``.
        baselines: what was to be expected, from the pulls before.

    Returns:
        ``(tasks,)``.  Its gradient takes returns and baselines as constants.
    """
    return -tf.reduce_sum(log_chances * tf.stop_gradient(returns - baselines), axis=1)


def chosen(logits, arms):
    """The logarithm of the probability of each arm that was pulled, ``(tasks, pulls)``."""
    return tf.gather(tf.nn.log_softmax(logits), arms, axis=2, batch_dims=2)


VALUE = 0.1  # the estimate moves the state too, and must not outweigh what is played


def losses(learner, arms, rewards, returns, entropy=0.0):
    """What a ``BanditLearner`` is trained by, ``(runs,)``.

    The policy gradient with the learner's own estimate as the baseline, a share of half the square
    of that estimate's error, and the entropy of what is played.

    Args:
        learner: a ``BanditLearner``.
        arms, rewards: of runs that it has played, ``(runs, pulls)``.
        returns: what is credited to each pull, ``(runs, pulls)``.
        entropy: how much the entropy of the arms' probabilities counts.
    """
    logits, values = (tf.cast(told, returns.dtype) for told in learner((arms, rewards)))
    entropies = -tf.reduce_sum(tf.nn.softmax(logits) * tf.nn.log_softmax(logits), axis=(1, 2))
    wrong = tf.reduce_sum((returns - values) ** 2, axis=1) / 2
    gradient = policy_gradient_loss(chosen(logits, arms), returns, values)
    return gradient + VALUE * wrong - entropy * entropies


def train_bandit_learner(
    learner, family, pulls, steps, rate=1e-2, entropy=0.0, credit=rewards_to_go, tasks=256, seed=0
):
    """Train a ``BanditLearner`` by policy gradient (:eq:`eq-policy-gradient`) on ever new tasks.

    What is raised is the expected reward of a run (:eq:`eq-bandit-objective`).  In the place of
    each reward stands what the arm brings on average, less what the best arm would, and ``credit``
    makes of these what a pull is credited with: the designer of a learner knows the tasks that it
    is trained on.

    Args:
        learner: a ``BanditLearner``, trained in place.
        family: ``BernoulliArms`` or ``InformativeArm``.
        pulls: T, of a run.
        steps: of Adam.
        rate: its step size, falling to 0 along a cosine.
        entropy: how much the entropy of the arms' probabilities counts, falling to 0 linearly.
        credit: from ``(tasks, pulls)`` rewards to what each pull is credited with.
        tasks: M, in a meta-batch.
        seed: 0 to 2**32 - 1.

    Returns:
        The mean regret of a run at each step, how much less it brought than the best arm would
        have: array ``(steps,)``.

    Example:
        >>> family, learner = mlutils.BernoulliArms(arms=2), mlutils.BanditLearner(arms=2)
        >>> regrets = mlutils.train_bandit_learner(learner, family, pulls=5, steps=2, tasks=10)
        >>> len(regrets), bool((regrets >= 0).all())
        (2, True)
    """
    pulls, steps = check_count("pulls", pulls), check_count("steps", steps)
    tasks, seed = check_count("tasks", tasks), check_seed(seed)
    entropy = check_rate("entropy", entropy)
    rate = keras.optimizers.schedules.CosineDecay(check_positive("rate", rate), steps)
    optimizer, weights = keras.optimizers.Adam(rate, clipnorm=1.0), learner.trainable_variables
    optimizer.build(weights)

    @tf.function(autograph=False)
    def step(number):
        own = seeds(seed, number)
        batch = family.draw(tasks, own)
        arms, rewards = learner.play(family, batch, pulls, own)
        regrets = family.regrets(batch, arms)
        share = entropy * (1 - tf.cast(number, tf.float32) / steps)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses(learner, arms, rewards, credit(-regrets), share))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return tf.reduce_mean(tf.reduce_sum(regrets, axis=1))

    return tf.stack([step(tf.constant(number)) for number in range(steps)]).numpy()
