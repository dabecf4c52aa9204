"""The loss of a sampled softmax, with a backward pass that saves time and memory.

Jean, Cho, Memisevic & Bengio (2015), "On using very large target vocabulary for neural machine translation",
https://arxiv.org/abs/1412.2007.

Shape legend: N targets, K negatives, H width of a state.
"""

import torch

ROWS = 256  # targets that are computed at a time


class SampledSoftmax(torch.autograd.Function):
    """The mean negative log-likelihood of N targets among K negatives.

    Loss and gradients are computed together for slices of the targets, whose logits fit into the processor's cache;
    the (N, K) logits are never in memory.
    """

    @staticmethod
    def forward(ctx, states, target_logits, embeddings, offsets, places):
        """Compute the loss and its gradients from `states` (N, H) and `target_logits` (N,).

        Args:
            embeddings: (K, H), the output embeddings of the negatives; `offsets` (K,) are added to their logits.
            places: (N,), the index at which the target is among the negatives, and is left out there, or -1.
        """
        loss = target_logits.new_zeros(())
        state_gradients, target_gradients = [], []
        embedding_gradient, offset_gradient = torch.zeros_like(embeddings), torch.zeros_like(offsets)
        slices = (x.split(ROWS) for x in (states, target_logits, places))
        for some_states, some_targets, some_places in zip(*slices, strict=True):
            # Only the products may have low precision: bfloat16 would round the offsets and the sum over the words.
            logits = (some_states @ embeddings.T).to(offsets.dtype).add_(offsets)  # (rows, K)
            rows = (some_places >= 0).nonzero().squeeze(-1)
            logits[rows, some_places[rows]] = float("-inf")
            totals = torch.logaddexp(logits.logsumexp(dim=-1), some_targets)
            loss += (totals - some_targets).sum()
            probabilities = logits.sub_(totals.unsqueeze(-1)).exp_()
            offset_gradient += probabilities.sum(dim=0)
            probabilities = probabilities.to(some_states.dtype)
            state_gradients.append(probabilities @ embeddings)
            target_gradients.append((some_targets - totals).exp() - 1)
            embedding_gradient += probabilities.T @ some_states
        ctx.save_for_backward(
            torch.cat(state_gradients).to(states.dtype),
            torch.cat(target_gradients),
            embedding_gradient,
            offset_gradient,
        )
        return loss / len(states)

    @staticmethod
    def backward(ctx, gradient):
        gradients = ctx.saved_tensors
        gradient = gradient / len(gradients[0])
        return *(gradient.to(each.dtype) * each for each in gradients), None
